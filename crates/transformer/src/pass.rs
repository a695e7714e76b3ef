//! The forward pass that every family shares: what runs in which order, where it can be tapped, where it ends.

use std::iter;

use burn::tensor::{Int, Tensor, TensorData};
use monosema_core::{BlockHook, HookPoint};

use crate::{
    NoTap, Tap,
    alike::{Alike, indices, row},
    blocks::{Block, Norm, Transformer, normed},
    host::{self, each},
};

/// Runs `model` over `tokens` and returns the hidden states after the final norm.
pub(crate) fn forward(model: &Transformer, tokens: Tensor<2, Int>, tap: &mut dyn Tap) -> Tensor<3> {
    end(model, go_on(model, begin(model, tokens), None, None, tap))
}

/// Runs `model` over `tokens` just as far as the last hook that `tap` wants.
pub(crate) fn run(model: &Transformer, tokens: Tensor<2, Int>, tap: &mut dyn Tap) {
    let last = model.shape.hooks().filter(|&hook| tap.wants(hook)).last();
    if last.is_some() {
        go_on(model, begin(model, tokens), None, last, tap);
    }
}

/// A pass that stands at a hook.
#[derive(Clone)]
pub(crate) struct Paused {
    hook: HookPoint,
    groups: Vec<Group>,
}

impl Paused {
    /// Runs `model` over `tokens` up to `hook`, which it has. `tap` is shown what comes before.
    pub(crate) fn at(
        model: &Transformer,
        tokens: Tensor<2, Int>,
        hook: HookPoint,
        tap: &mut dyn Tap,
    ) -> Self {
        let mut until = Until { hook, tap };
        Self { hook, groups: go_on(model, begin(model, tokens), None, Some(hook), &mut until) }
    }

    /// What is there.
    pub(crate) fn value(&self, model: &Transformer) -> Tensor<3> {
        shown(model, self.hook, &self.groups)
    }

    /// What it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.groups.iter().map(Group::bytes).sum()
    }

    /// Goes on to the end with `x` in place of it. `tap` is shown what comes behind.
    pub(crate) fn resume(&self, model: &Transformer, x: Tensor<3>, tap: &mut dyn Tap) -> Tensor<3> {
        let groups = replaced(model, self.hook, self.groups.clone(), x);
        end(model, go_on(model, groups, Some(self.hook), None, tap))
    }

    /// Goes on to the end with each of `xs` in place of it. On the CPU several go side by side, and of sequences of one of them that
    /// are alike at the hook, one.
    pub(crate) fn resume_each(&self, model: &Transformer, xs: Vec<Tensor<3>>) -> Vec<Tensor<3>> {
        let on_host = host::applies_to(&self.groups[0].stream.device());
        let (mut xs, mut hidden) = (xs.into_iter(), Vec::new());
        while xs.len() > 0 {
            if on_host {
                hidden.extend(self.resume_some(model, xs.by_ref().take(SIDE_BY_SIDE)));
            } else {
                hidden.extend(xs.next().map(|x| self.resume(model, x, &mut NoTap)));
            }
        }
        hidden
    }

    fn resume_some(&self, model: &Transformer, xs: impl Iterator<Item = Tensor<3>>) -> Vec<Tensor<3>> {
        let (mut groups, mut passes) = (Vec::new(), Vec::new());
        for x in xs {
            let mut all = replaced(model, self.hook, self.groups.clone(), x);
            let Alike { firsts, which } = alike(&all);
            let shared = firsts.len() < which.len();
            if shared {
                all = Group::join(all).select(&firsts).split();
            }
            passes.push((all.len(), shared.then_some(which)));
            groups.extend(all);
        }
        let mut groups = go_on(model, groups, Some(self.hook), None, &mut NoTap);
        let pass = |(n, which): (usize, Option<Vec<usize>>)| {
            let hidden = end(model, groups.drain(..n).collect());
            match which {
                Some(which) => hidden.clone().select(0, indices(&which, &hidden.device())),
                None => hidden,
            }
        };
        passes.into_iter().map(pass).collect()
    }
}

/// How many passes are resumed side by side: groups enough for all cores, of few passes that take memory.
const SIDE_BY_SIDE: usize = 4;

/// Which sequences are alike in all that a group knows of them.
fn alike(groups: &[Group]) -> Alike {
    let parts: Vec<Vec<TensorData>> = groups.iter().map(Group::parts).collect();
    let sequences = groups.iter().zip(&parts).flat_map(|(group, parts)| {
        let [n, ..] = group.stream.dims();
        (0..n).map(move |index| parts.iter().map(|part| row(part, index, n)).collect::<Vec<_>>())
    });
    Alike::of(sequences)
}

/// Shows a tap what comes before a hook, and stops there.
struct Until<'a> {
    hook: HookPoint,
    tap: &'a mut dyn Tap,
}

impl Tap for Until<'_> {
    fn wants(&self, hook: HookPoint) -> bool {
        hook == self.hook || self.tap.wants(hook)
    }

    fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
        if hook < self.hook { self.tap.visit(hook, x) } else { x }
    }
}

/// A batch travels in groups of sequences. On the CPU each has a thread of its own from one hook that the tap wants to
/// the next: what burn does on one thread is then done on all cores, and the intermediate values of a group stay in
/// the cache. Mathematically a sequence knows nothing of its batch; in f32 the number of rows of a group chooses the
/// order in which a matrix product sums, so that the last bits may differ.
fn begin(model: &Transformer, tokens: Tensor<2, Int>) -> Vec<Group> {
    each(split(tokens), |tokens| Group::new(model.embedding.embed(tokens)))
}

/// From behind the hook `from`, or from the tokens, to the hook `last`, or to the end.
fn go_on(
    model: &Transformer,
    mut groups: Vec<Group>,
    from: Option<HookPoint>,
    last: Option<HookPoint>,
    tap: &mut dyn Tap,
) -> Vec<Group> {
    // A pattern is formed whole only where somebody looks at it.
    let passed = |&hook: &HookPoint| !is_at(hook, BlockHook::AttnPattern) || tap.wants(hook);
    let behind = |&hook: &HookPoint| from.is_none_or(|from| hook > from);
    let hooks = model.shape.hooks().filter(passed).filter(behind);
    let hooks: Vec<HookPoint> = hooks.take_while(|&hook| last.is_none_or(|last| hook <= last)).collect();
    let stretches: Vec<&[HookPoint]> = hooks.split_inclusive(|&hook| tap.wants(hook)).collect();
    for stretch in stretches {
        groups = each(groups, |group| stretch.iter().fold(group, |group, &hook| group.step(model, hook)));
        if let Some(&hook) = stretch.last().filter(|&&hook| tap.wants(hook)) {
            let x = tap.visit(hook, shown(model, hook, &groups));
            groups = replaced(model, hook, groups, x);
        }
    }
    groups
}

fn end(model: &Transformer, groups: Vec<Group>) -> Tensor<3> {
    join(each(groups, |group| model.final_norm.scale(group.stream)))
}

/// What the groups hold at `hook`, as one batch.
fn shown(model: &Transformer, hook: HookPoint, groups: &[Group]) -> Tensor<3> {
    join(groups.iter().map(|group| group.shown(model, hook)).collect())
}

/// The groups with `x` in place of what they showed at `hook`.
fn replaced(model: &Transformer, hook: HookPoint, groups: Vec<Group>, x: Tensor<3>) -> Vec<Group> {
    let rows = |group: &Group| group.shown(model, hook).dims();
    let [sequences, seq, width] = rows(&groups[0]);
    let all: usize = groups.iter().map(|group| rows(group)[0]).sum();
    assert_eq!(x.dims(), [all, seq, width], "what is put at {hook} has another shape");
    let parts = if groups.len() == 1 { vec![x] } else { x.split(sequences, 0) };
    groups.into_iter().zip(parts).map(|(group, x)| group.replaced(model, hook, x)).collect()
}

fn is_at(hook: HookPoint, place: BlockHook) -> bool {
    matches!(hook, HookPoint::Block { site, .. } if site == place)
}

/// A group of sequences on its way through the model.
#[derive(Clone)]
struct Group {
    /// The residual stream, `[batch, seq, d_model]`.
    stream: Tensor<3>,
    /// What the last step made on the way to what is added to the stream, `[batch, seq, …]`.
    made: Option<Tensor<3>>,
    /// The values to be gathered by a pattern that was just made.
    values: Option<Tensor<4>>,
}

impl Group {
    fn new(stream: Tensor<3>) -> Self {
        Self { stream, made: None, values: None }
    }

    /// Several as one.
    fn join(groups: Vec<Self>) -> Self {
        let (mut streams, mut made, mut values) = (Vec::with_capacity(groups.len()), Vec::new(), Vec::new());
        for group in groups {
            streams.push(group.stream);
            made.extend(group.made);
            values.extend(group.values);
        }
        let cat = |parts: Vec<Tensor<3>>| (!parts.is_empty()).then(|| join(parts));
        let values = (!values.is_empty()).then(|| Tensor::cat(values, 0));
        Self { stream: join(streams), made: cat(made), values }
    }

    /// One as several.
    fn split(self) -> Vec<Self> {
        let [batch, seq, _] = self.stream.dims();
        let sequences = sequences_of(seq);
        let part = |first: usize| {
            let n = sequences.min(batch - first);
            Self {
                stream: self.stream.clone().narrow(0, first, n),
                made: self.made.clone().map(|made| made.narrow(0, first, n)),
                values: self.values.clone().map(|values| values.narrow(0, first, n)),
            }
        };
        (0..batch).step_by(sequences).map(part).collect()
    }

    /// Some of its sequences.
    fn select(self, sequences: &[usize]) -> Self {
        let sequences = indices(sequences, &self.stream.device());
        Self {
            stream: self.stream.select(0, sequences.clone()),
            made: self.made.map(|made| made.select(0, sequences.clone())),
            values: self.values.map(|values| values.select(0, sequences)),
        }
    }

    /// All that it knows, in host memory; sequences come first.
    fn parts(&self) -> Vec<TensorData> {
        let parts = iter::once(self.stream.to_data()).chain(self.made.as_ref().map(Tensor::to_data));
        parts.chain(self.values.as_ref().map(Tensor::to_data)).collect()
    }

    fn bytes(&self) -> usize {
        fn of<const D: usize>(tensor: &Tensor<D>) -> usize {
            tensor.shape().num_elements() * tensor.dtype().size()
        }
        of(&self.stream) + self.made.as_ref().map_or(0, of) + self.values.as_ref().map_or(0, of)
    }

    /// From the hook before to `hook`. Of hooks that the model lacks, the next one's step does the work.
    fn step(mut self, model: &Transformer, hook: HookPoint) -> Self {
        match hook {
            HookPoint::Embed => {}
            HookPoint::Block { layer: 0, site: BlockHook::ResidPre } => {
                self.stream = model.embedding.add_positions(self.stream);
            }
            HookPoint::Block { layer, site } => return self.step_within(&model.blocks[layer], site),
            HookPoint::FinalNormalized => self.stream = model.final_norm.normalize(self.stream),
        }
        self
    }

    fn step_within(mut self, block: &Block, site: BlockHook) -> Self {
        let attention = &block.attention;
        let made = match site {
            BlockHook::ResidPre => return self,
            BlockHook::AttnPattern => {
                let (pattern, values) = attention.pattern(self.read(block.attention_norm.as_ref()));
                self.values = Some(values);
                pattern
            }
            BlockHook::AttnZ => match self.values.take() {
                Some(values) => attention.gather(self.take_made(), &values),
                None => attention.z(self.read(block.attention_norm.as_ref())),
            },
            BlockHook::AttnOut => {
                normed(block.post_attention_norm.as_ref(), attention.output(self.take_made()))
            }
            BlockHook::MlpPre => {
                let (group, x) = self.read_by_mlp(block);
                self = group;
                block.mlp.pre(x)
            }
            BlockHook::MlpPost => block.mlp.post(self.take_made()),
            BlockHook::MlpOut => {
                let written = match &block.experts {
                    None => block.mlp.down(self.take_made()),
                    Some(experts) => {
                        let (group, x) = self.read_by_mlp(block);
                        self = group;
                        block.mlp.forward(x.clone()) + experts.forward(x)
                    }
                };
                normed(block.post_mlp_norm.as_ref(), written)
            }
            BlockHook::ResidMid | BlockHook::ResidPost => return self.added(),
        };
        self.made = Some(made);
        self
    }

    /// The stream as attention or MLP read it.
    fn read(&self, norm: Option<&Norm>) -> Tensor<3> {
        normed(norm, self.stream.clone())
    }

    /// What the MLP reads. In a parallel block that is the stream before what attention made is added.
    fn read_by_mlp(self, block: &Block) -> (Self, Tensor<3>) {
        let x = self.read(block.mlp_norm.as_ref());
        (if block.parallel { self.added() } else { self }, x)
    }

    fn take_made(&mut self) -> Tensor<3> {
        self.made.take().expect("the step before made something")
    }

    /// What was made, added to the stream.
    fn added(mut self) -> Self {
        let made = self.take_made();
        Self::new(self.stream + made)
    }

    /// What there is to see at `hook`, to which the last step led.
    fn shown(&self, model: &Transformer, hook: HookPoint) -> Tensor<3> {
        match (hook, &self.made) {
            (HookPoint::Block { layer, site: BlockHook::MlpPre }, Some(pre)) => {
                model.blocks[layer].mlp.shown_pre(pre)
            }
            (_, Some(made)) => made.clone(),
            (_, None) => self.stream.clone(),
        }
    }

    /// With `x` in place of what [`Group::shown`] showed.
    fn replaced(mut self, model: &Transformer, hook: HookPoint, x: Tensor<3>) -> Self {
        match (hook, self.made.take()) {
            (HookPoint::Block { layer, site: BlockHook::MlpPre }, Some(pre)) => {
                self.made = Some(model.blocks[layer].mlp.replaced_pre(pre, x));
            }
            (_, Some(_)) => self.made = Some(x),
            (_, None) => self.stream = x,
        }
        self
    }
}

/// How many rows (positions) a group has at least: enough to keep matrix products efficient.
///
/// Measured with SmolLM2-135M to block 9, batches of 8 × 256 tokens, two threads: 4,350 to 4,700 tokens/s.
const ROWS: usize = 256;

/// How many sequences a group has.
fn sequences_of(seq: usize) -> usize {
    ROWS.div_ceil(seq)
}

/// A batch in groups of sequences; one group where an accelerator takes all at once, or gradients are recorded.
fn split(tokens: Tensor<2, Int>) -> Vec<Tensor<2, Int>> {
    let [batch, seq] = tokens.dims();
    let sequences = sequences_of(seq);
    if batch <= sequences || !host::applies_to(&tokens.device()) {
        return vec![tokens];
    }
    tokens.split(sequences, 0)
}

fn join(mut groups: Vec<Tensor<3>>) -> Tensor<3> {
    if groups.len() == 1 { groups.remove(0) } else { Tensor::cat(groups, 0) }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use burn::tensor::{Device, s};
    use monosema_core::Seed;

    use super::*;
    use crate::{
        Capture,
        blocks::{Linear, Shape},
    };

    /// Groups of other sizes sum in another order; hidden states are about 1.
    const ROUNDING: f32 = 1e-5;

    fn model(parallel: bool) -> Transformer {
        let mut shape = Shape::small();
        shape.blocks.iter_mut().for_each(|block| block.parallel = parallel);
        Transformer::init(&shape, &mut Seed(1).stream("test"), &Device::flex())
    }

    fn tokens(shape: [usize; 2]) -> Tensor<2, Int> {
        let ids: Vec<i64> = (0..(shape[0] * shape[1]) as i64).map(|i| i * i % 7).collect();
        Tensor::from_data(TensorData::new(ids, shape), &Device::flex())
    }

    /// `model` with every map but the first `n`, in order of execution, replaced by one that fits nowhere.
    fn only(mut model: Transformer, n: usize) -> Transformer {
        let maps = model.blocks.iter_mut().flat_map(|block| {
            let Block { attention, mlp, .. } = block;
            [&mut attention.qkv, &mut attention.output, &mut mlp.up, &mut mlp.down]
        });
        for map in maps.skip(n) {
            *map = Linear::new([1, 1], vec![0.0], None, &Device::flex());
        }
        model
    }

    #[test]
    fn nothing_runs_beyond_the_last_hook() {
        for parallel in [false, true] {
            let runs = |hook: HookPoint, maps: usize| {
                let model = only(model(parallel), maps);
                let mut capture = Capture::new([hook]);
                catch_unwind(AssertUnwindSafe(|| run(&model, tokens([1, 2]), &mut capture))).is_ok()
                    && capture.take(hook).is_some()
            };
            for hook in model(parallel).shape.hooks() {
                let needed = match hook {
                    HookPoint::Embed => 0,
                    HookPoint::FinalNormalized => 8,
                    HookPoint::Block { layer, site } => {
                        4 * layer
                            + match site {
                                BlockHook::ResidPre => 0,
                                BlockHook::AttnPattern | BlockHook::AttnZ => 1,
                                BlockHook::AttnOut | BlockHook::ResidMid => 2,
                                BlockHook::MlpPre | BlockHook::MlpPost => 3,
                                BlockHook::MlpOut | BlockHook::ResidPost => 4,
                            }
                    }
                };
                assert!(runs(hook, needed), "{hook} needs more than {needed} maps");
                assert!(needed == 0 || !runs(hook, needed - 1), "{hook} does without the last of {needed}");
            }
        }
    }

    #[test]
    fn a_tap_that_wants_nothing_runs_nothing() {
        run(&only(model(false), 0), tokens([1, 2]), &mut NoTap);
    }

    #[test]
    fn a_tap_is_shown_every_hook_in_order_and_all_that_it_wants_at_once() {
        struct Log(Vec<HookPoint>);
        impl Tap for Log {
            fn wants(&self, _: HookPoint) -> bool {
                true
            }
            fn visit(&mut self, hook: HookPoint, x: Tensor<3>) -> Tensor<3> {
                assert_eq!(x.dims()[..2], [7, 100]);
                self.0.push(hook);
                x
            }
        }
        for parallel in [false, true] {
            let (model, mut log) = (model(parallel), Log(Vec::new()));
            forward(&model, tokens([7, 100]), &mut log);
            assert_eq!(log.0, model.shape.hooks().collect::<Vec<_>>());
            let mid = HookPoint::block(1, BlockHook::ResidMid);
            assert_eq!(log.0.contains(&mid), !parallel);
        }
    }

    #[test]
    fn groups_of_sequences_come_back_in_order() {
        // Sequences of 100: three a group, so 7 make three groups.
        let (model, tokens) = (model(false), tokens([7, 100]));
        let values = |x: Tensor<3>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        let together = values(forward(&model, tokens.clone(), &mut NoTap));
        let alone = (0..7).flat_map(|i| values(forward(&model, tokens.clone().narrow(0, i, 1), &mut NoTap)));
        let alone: Vec<f32> = alone.collect();
        assert_eq!(together.len(), alone.len());
        let worst = together.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < ROUNDING, "{worst:.1e}");
        assert_ne!(alone[..100], alone[100..200], "sequences differ");
    }

    #[test]
    fn sequences_that_are_alike_from_a_hook_on_are_one() {
        let (model, tokens) = (model(false), tokens([7, 100]));
        for (site, once) in [
            (BlockHook::ResidPost, vec![0, 1, 2, 3, 3, 2, 1]),
            // What the MLP is added to is still there.
            (BlockHook::MlpOut, (0..7).collect()),
        ] {
            let hook = HookPoint::block(0, site);
            let paused = Paused::at(&model, tokens.clone(), hook, &mut NoTap);
            let x = paused.value(&model);
            let but_the_first = |n: usize| x.clone().slice_fill(s![.., n.., ..], 0.0);
            let which =
                |x: &Tensor<3>| alike(&replaced(&model, hook, paused.groups.clone(), x.clone())).which;
            // Sequences begin with the tokens 0, 4, 2, 1, 1, 2, 4. More passes than go side by side.
            let xs = [but_the_first(1), x.clone(), but_the_first(0), x.clone(), but_the_first(1)];
            assert_eq!(which(&xs[0]), once);
            assert_eq!(which(&xs[1]), [0, 1, 2, 3, 4, 5, 6]);
            let found = paused.resume_each(&model, xs.to_vec());
            assert_eq!(found.len(), xs.len());
            for (found, x) in found.into_iter().zip(xs) {
                let expected = paused.resume(&model, x, &mut NoTap);
                assert_eq!(found.dims(), expected.dims());
                let worst = (found - expected).abs().max().into_scalar::<f32>();
                assert!(worst < ROUNDING, "{hook}: {worst:.1e}");
            }
        }
    }
}
