//! Which tokens of a window count: by their positions, and by what they are.

use std::collections::BTreeSet;

use crate::{ContextConfig, ContextPlan, Positions, TextError, TokenName, Tokenizer, Verdict};

impl ContextPlan {
    /// What becomes of `token` at `position` of a window; `is_last` if it is the last of its document.
    pub(crate) fn judge(&self, position: usize, is_last: bool, token: u32, tokenizer: &Tokenizer) -> Verdict {
        let chosen = |positions: &Positions| positions.contain(position, is_last);
        if position < self.skip_first || !self.positions.as_ref().is_none_or(chosen) {
            return Verdict::Position;
        }
        if tokenizer.special().bos == Some(token) {
            if self.skip_bos {
                return Verdict::Bos;
            }
        } else if self.skip_special && tokenizer.is_special(token) {
            return Verdict::Special;
        }
        let wanted = self.only_tokens.as_ref().is_none_or(|only| only.contains(&token));
        if wanted && !self.skip_tokens.contains(&token) { Verdict::Counts } else { Verdict::Token }
    }

    /// Which tokens count, in words: of windows, "the first position of each is skipped, …".
    pub fn rule(&self) -> String {
        let mut rule = match self.skip_first {
            0 => "no position is skipped for its place".to_owned(),
            1 => "the first position of each is skipped".to_owned(),
            n => format!("the first {n} positions of each are skipped"),
        };
        if let Some(positions) = &self.positions {
            rule += &format!(", only positions {positions} of the others are chosen");
        }
        rule += match (self.skip_bos, self.skip_special) {
            (true, true) => ", BOS and other special tokens are skipped",
            (true, false) => ", BOS is skipped and other special tokens count",
            (false, true) => ", special tokens other than BOS are skipped",
            (false, false) => ", special tokens count",
        };
        if let Some(only) = &self.only_tokens {
            rule += &format!(", only {} chosen token(s) count", only.len());
        }
        if !self.skip_tokens.is_empty() {
            rule += &format!(", {} chosen token(s) are skipped", self.skip_tokens.len());
        }
        rule
    }
}

/// Checks that any of `positions` may count.
pub(crate) fn check_positions(config: &ContextConfig) -> Result<(), TextError> {
    let Some(positions) = &config.positions else { return Ok(()) };
    let bad = |reason| TextError::BadContext { key: "positions", reason };
    if let Some(piece) = positions.beyond(config.length) {
        return Err(bad(format!(
            "`{piece}`: expected positions below length = {}: they count from 0",
            config.length
        )));
    }
    if !positions.meet(&(config.skip_first..config.length)) {
        let first = config.skip_first;
        return Err(bad(format!(
            "all of `{positions}` is among what skip_first = {first} leaves out; lower it"
        )));
    }
    Ok(())
}

/// The ids of `only_tokens`, of which any may count.
pub(crate) fn only_tokens(
    config: &ContextConfig,
    tokenizer: &Tokenizer,
) -> Result<Option<BTreeSet<u32>>, TextError> {
    let Some(names) = &config.only_tokens else { return Ok(None) };
    let bad = |reason| TextError::BadContext { key: "only_tokens", reason };
    if names.is_empty() {
        return Err(bad("expected at least one token; leave the key out to count all".into()));
    }
    let (mut only, bos) = (BTreeSet::new(), tokenizer.special().bos);
    for name in names {
        let id = name.find(tokenizer).map_err(bad)?;
        let skipped_by = match () {
            () if bos == Some(id) => config.skip_bos.then_some("skip_bos"),
            () if tokenizer.is_special(id) => config.skip_special.then_some("skip_special"),
            () => None,
        };
        if let Some(key) = skipped_by {
            return Err(bad(format!("`{name}` is a special token, which is left out; set {key} = false")));
        }
        only.insert(id);
    }
    if only.is_subset(&find_all("skip_tokens", &config.skip_tokens, tokenizer)?) {
        return Err(bad("all of them are in skip_tokens, so nothing counts".into()));
    }
    Ok(Some(only))
}

/// The ids of the tokens that `key` names.
pub(crate) fn find_all(
    key: &'static str,
    names: &[TokenName],
    tokenizer: &Tokenizer,
) -> Result<BTreeSet<u32>, TextError> {
    let bad = |reason| TextError::BadContext { key, reason };
    names.iter().map(|name| name.find(tokenizer).map_err(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::tests;

    fn text(token: &str) -> TokenName {
        TokenName::Text(token.into())
    }

    /// What becomes of the tokens `<s> a </s> b c`, one after the other, of which `b` ends a document.
    fn verdicts(config: ContextConfig) -> Vec<Verdict> {
        let tokenizer = tests::tokenizer(true);
        let plan =
            ContextPlan::new(&ContextConfig { length: 8, skip_first: 0, ..config }, &tokenizer).unwrap();
        let tokens = [1, 3, 2, 4, 5].into_iter().enumerate();
        tokens.map(|(position, token)| plan.judge(position, token == 4, token, &tokenizer)).collect()
    }

    #[test]
    fn what_counts_is_chosen_by_position_and_by_token() {
        use Verdict::{Bos, Counts, Position, Special, Token};
        let default = ContextConfig::default;
        assert_eq!(verdicts(default()), [Bos, Counts, Special, Counts, Counts]);
        let config = ContextConfig { skip_bos: false, ..default() };
        assert_eq!(verdicts(config), [Counts, Counts, Special, Counts, Counts]);
        let config = ContextConfig { skip_special: false, ..default() };
        assert_eq!(verdicts(config), [Bos, Counts, Counts, Counts, Counts]);
        let config = ContextConfig { positions: Some("0..2,last".parse().unwrap()), ..default() };
        assert_eq!(verdicts(config), [Bos, Counts, Position, Counts, Position]);
        let config = ContextConfig { only_tokens: Some(vec![text("a"), TokenName::Id(5)]), ..default() };
        assert_eq!(verdicts(config), [Bos, Counts, Special, Token, Counts]);
        let config = ContextConfig { skip_tokens: vec![text("a"), text("</s>")], ..default() };
        assert_eq!(verdicts(config), [Bos, Token, Special, Counts, Counts]);
        let config = ContextConfig {
            positions: Some("1..4".parse().unwrap()),
            only_tokens: Some(vec![text("b"), text("c"), text("</s>")]),
            skip_tokens: vec![TokenName::Id(5)],
            skip_special: false,
            ..default()
        };
        assert_eq!(verdicts(config), [Position, Token, Counts, Counts, Position]);
    }

    #[test]
    fn a_choice_of_nothing_is_refused() {
        let tokenizer = tests::tokenizer(true);
        let refused = |config: ContextConfig| {
            let config = ContextConfig { length: 8, skip_first: 2, ..config };
            ContextPlan::new(&config, &tokenizer).unwrap_err().to_string()
        };
        let default = ContextConfig::default;
        let positions =
            |text: &str| refused(ContextConfig { positions: Some(text.parse().unwrap()), ..default() });
        assert!(positions("3,8..10").contains("positions: `8..10`: expected positions below length = 8"));
        assert!(
            positions("0,1").contains("positions: all of `0,1`")
                && positions("0,1").contains("skip_first = 2")
        );
        let only =
            |names: &[TokenName]| refused(ContextConfig { only_tokens: Some(names.to_vec()), ..default() });
        assert!(only(&[]).contains("only_tokens: expected at least one"));
        assert!(only(&[text("d")]).contains("only_tokens: `d` is no token"));
        assert!(only(&[text("a"), text("</s>")]).contains("`</s>` is a special token"));
        assert!(only(&[text("</s>")]).contains("set skip_special = false"));
        assert!(only(&[TokenName::Id(1)]).contains("set skip_bos = false"));
        let (only, skip) = (vec![text("a")], vec![text("b"), text("a")]);
        let error = refused(ContextConfig { only_tokens: Some(only), skip_tokens: skip, ..default() });
        assert!(error.contains("only_tokens: all of them are in skip_tokens"), "{error}");
        let error = refused(ContextConfig { skip_tokens: vec![TokenName::Id(99)], ..default() });
        assert!(error.contains("skip_tokens: the tokenizer has no token 99"), "{error}");
    }

    #[test]
    fn the_rule_says_what_counts() {
        let tokenizer = tests::tokenizer(true);
        let rule = |config: &ContextConfig| ContextPlan::new(config, &tokenizer).unwrap().rule();
        let default = rule(&ContextConfig::default());
        assert_eq!(
            default,
            "the first position of each is skipped, BOS and other special tokens are skipped"
        );
        let config = ContextConfig {
            positions: Some("1..9,last".parse().unwrap()),
            skip_special: false,
            only_tokens: Some(vec![text("a"), text("b")]),
            skip_tokens: vec![text("b")],
            ..ContextConfig::default()
        };
        for part in [
            "only positions 1..9,last of the others are chosen",
            "BOS is skipped and other special tokens count",
            "only 2 chosen token(s) count, 1 chosen token(s) are skipped",
        ] {
            assert!(rule(&config).contains(part), "{}", rule(&config));
        }
    }
}
