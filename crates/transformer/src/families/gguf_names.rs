//! What llama.cpp calls the tensors of a family, there and back.

/// Names in GGUF files and their like within a family. Those of block `L` begin with `blk.L.` in the files.
pub(crate) struct GgufNames {
    /// What the family's names of block `L` begin with, before `L` and a dot.
    pub(crate) blocks: &'static str,
    /// Name in the file and within the family, of tensors outside blocks.
    pub(crate) whole: &'static [(&'static str, &'static str)],
    /// The same of maps and norms within blocks, without block and kind (`weight`, `bias`).
    pub(crate) parts: &'static [(&'static str, &'static str)],
}

impl GgufNames {
    /// The name within the family of what a file calls `name`.
    pub(crate) fn own(&self, name: &str) -> Option<String> {
        if let Some((_, own)) = self.whole.iter().find(|(file, _)| *file == name) {
            return Some((*own).to_owned());
        }
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (_, own) = self.parts.iter().find(|(file, _)| *file == part)?;
        Some(format!("{}{layer}.{own}.{kind}", self.blocks))
    }

    /// What a file calls the tensor `own` of the family.
    pub(crate) fn in_file(&self, own: &str) -> Option<String> {
        if let Some((file, _)) = self.whole.iter().find(|(_, name)| *name == own) {
            return Some((*file).to_owned());
        }
        let (layer, rest) = own.strip_prefix(self.blocks)?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let (file, _) = self.parts.iter().find(|(_, name)| *name == part)?;
        Some(format!("blk.{layer}.{file}.{kind}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        let names = GgufNames {
            blocks: "model.layers.",
            whole: &[("output_norm.weight", "model.norm.weight")],
            parts: &[("attn_q", "self_attn.q_proj")],
        };
        for (file, own) in [
            ("output_norm.weight", "model.norm.weight"),
            ("blk.12.attn_q.weight", "model.layers.12.self_attn.q_proj.weight"),
            ("blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"),
        ] {
            assert_eq!(names.own(file).as_deref(), Some(own));
            assert_eq!(names.in_file(own).as_deref(), Some(file));
        }
        assert_eq!(names.own("blk.0.attn_z.weight"), None);
        assert_eq!(names.own("blk.0"), None);
        assert_eq!(names.in_file("model.layers.0.mlp.up_proj.weight"), None);
    }
}
