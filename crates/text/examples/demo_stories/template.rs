//! Turns a template into a sentence, and records what it gives away.
//!
//! A template is plain English with
//!
//! - `[a|b|c]`: one of them;
//! - `^`: here the sentence gives away the factor that its table is keyed by;
//! - `{…}`: a slot. It is capitalised if a sentence begins with it.
//!
//! | slot | is |
//! |---|---|
//! | `{S}` | the subject: by name or pronoun, as is clear; `{s}`: by pronoun; `{o}`, `{p}`: its object and possessive forms |
//! | `{name}`, `{child}` | the main character by name; introduced (`a girl named Anna`) |
//! | `{v:walk}` | the verb for the subject; `{w:walk}`: for one thing, `{z:walk}`: for several |
//! | `{n:head}` | the noun in the subject's number |
//! | `{place}`, `{at}`, `{to}`, `{spot}`, `{helper}`, `{old place}`, `{old helper}` | the place, what is in it, and where the story was before |
//! | `{object}`, `{colour}`, `{look}`, `{play}` | the object, and what is done with it |
//! | `{friend}` | the animal |
//! | `{weather}`, `{time}`, `{at time}`, `{mood}` | their words |
//! | `{do}`, `{to do}` | what one does in this place; as an infinitive |
//! | `{speak}`, `{said}`, `{reply}` | by mood; `{said,}` and `{reply,}`: before `she said` |

use rand_chacha::{ChaCha8Rng, rand_core::RngCore};

use crate::{
    factors::{Factor, Record},
    lines,
    verbs::{Tense, conjugate},
    words::{OBJECTS, PLACES, Place},
};

/// The present state of the story, as indices of values.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The main character.
    pub(crate) lead: usize,
    /// The other of two main characters.
    pub(crate) second: Option<usize>,
    pub(crate) companion: Option<usize>,
    pub(crate) place: usize,
    /// The place before.
    pub(crate) old_place: usize,
    pub(crate) object: usize,
    pub(crate) colour: usize,
    pub(crate) weather: usize,
    pub(crate) time: usize,
    pub(crate) mood: usize,
    pub(crate) tense: Tense,
}

impl World {
    /// What the present place decides.
    pub(crate) fn here(&self) -> &'static Place {
        &PLACES[self.place]
    }
}

/// Who the subject of a sentence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The main character, or both of two.
    Lead,
    /// The main character and the animal.
    WithCompanion,
}

/// A story being told.
pub(crate) struct Teller {
    rng: ChaCha8Rng,
    pub(crate) world: World,
    pub(crate) text: String,
    pub(crate) record: Record,
    subject: Subject,
    /// Sentences since the present subject was last named.
    since_named: Option<u32>,
    capital: bool,
    infinitive: bool,
    speech: bool,
    told: Vec<&'static str>,
}

impl Teller {
    pub(crate) fn new(rng: ChaCha8Rng, world: World) -> Self {
        Self {
            rng,
            world,
            text: String::new(),
            record: Record::default(),
            subject: Subject::Lead,
            since_named: None,
            capital: true,
            infinitive: false,
            speech: false,
            told: Vec::new(),
        }
    }

    /// A number below `n`. Spelled out, so that a seed means the same story whatever the version of `rand`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        below(&mut self.rng, n)
    }

    /// True in `percent` of cases.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// One line of `lines` that this story has not told yet, if there is one.
    pub(crate) fn pick(&mut self, lines: &[&'static str]) -> &'static str {
        let fresh: Vec<&'static str> = lines.iter().copied().filter(|l| !self.told.contains(l)).collect();
        let line =
            if fresh.is_empty() { lines[self.below(lines.len())] } else { fresh[self.below(fresh.len())] };
        self.told.push(line);
        line
    }

    /// Tells `template` as the next sentence, with `subject`. `key` is the factor that `^` gives away.
    pub(crate) fn tell(&mut self, template: &str, subject: Subject, key: Option<Factor>) {
        if subject != self.subject {
            self.subject = subject;
            self.since_named = None;
        }
        self.since_named = self.since_named.map(|n| n + 1);
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push(' ');
        }
        self.capital = true;
        self.expand(template, key);
    }

    /// The position at which the next sentence will begin.
    pub(crate) fn next_sentence(&self) -> usize {
        self.text.len() + usize::from(!self.text.is_empty() && !self.text.ends_with('\n'))
    }

    fn expand(&mut self, template: &str, key: Option<Factor>) {
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            match c {
                '[' => {
                    let (inside, after) = rest[1..].split_once(']').expect("a `]` for every `[`");
                    let choices: Vec<&str> = inside.split('|').collect();
                    let choice = choices[self.below(choices.len())];
                    self.expand(choice, key);
                    rest = after;
                }
                '{' => {
                    let (slot, after) = rest[1..].split_once('}').expect("a `}` for every `{`");
                    self.slot(slot, key);
                    rest = after;
                }
                '^' => {
                    self.reveal_key(key.expect("`^` is used in keyed tables only"));
                    rest = &rest[1..];
                }
                _ => {
                    self.push_char(c);
                    rest = &rest[c.len_utf8()..];
                }
            }
        }
    }

    fn push_char(&mut self, c: char) {
        if c == '"' && !self.speech {
            self.reveal(Factor::Mode, 1);
            self.capital = true;
        }
        let c = if self.capital && c.is_alphabetic() {
            self.capital = false;
            c.to_ascii_uppercase()
        } else {
            c
        };
        // What follows a full stop is a sentence; what follows a quotation is `she said`, or a line of its own.
        self.capital |= c == ' ' && self.text.ends_with(['.', '!', '?']);
        self.text.push(c);
        if c == '"' {
            if self.speech {
                self.reveal(Factor::Mode, 0);
                self.capital = false;
            }
            self.speech = !self.speech;
        } else if self.record.value(Factor::Mode, usize::MAX).is_none() {
            self.record.set(0, Factor::Mode, 0);
        }
    }

    fn push(&mut self, words: &str) {
        words.chars().for_each(|c| self.push_char(c));
    }

    fn reveal(&mut self, factor: Factor, value: usize) {
        self.record.set(self.text.len(), factor, value);
    }

    fn reveal_key(&mut self, key: Factor) {
        let value = match key {
            Factor::Mood => self.world.mood,
            Factor::Weather => self.world.weather,
            Factor::Time => self.world.time,
            _ => unreachable!("no table is keyed by {key:?}"),
        };
        self.reveal(key, value);
    }

    /// Writes `words`, of which the last one is the value's.
    fn push_value(&mut self, words: &str, factor: Factor, value: usize) {
        let (before, word) = words.rsplit_once(' ').map_or(("", words), |(before, word)| (before, word));
        if !before.is_empty() {
            self.push(before);
            self.push(" ");
        }
        self.reveal(factor, value);
        self.push(word);
    }

    fn slot(&mut self, slot: &str, key: Option<Factor>) {
        if let Some((form, word)) = slot.split_once(':') {
            return self.inflect(form, word);
        }
        let world = self.world.clone();
        let here = world.here();
        match slot {
            "S" => self.push_subject(),
            "s" => self.push_pronoun(),
            "o" | "O" => self.push_gendered(["her", "him", "them"]),
            "p" | "P" => self.push_gendered(["her", "his", "their"]),
            "name" => self.push_names(),
            "child" => self.push_introduction(),
            "place" => self.push_value(Factor::Place.values()[world.place], Factor::Place, world.place),
            "at" | "At" => self.push_value(here.at, Factor::Place, world.place),
            "to" => {
                let to = format!("to the {}", Factor::Place.values()[world.place]);
                self.push_value(&to, Factor::Place, world.place);
            }
            "old place" => self.push(Factor::Place.values()[world.old_place]),
            "old helper" => self.push(PLACES[world.old_place].helper),
            "helper" => self.push(here.helper),
            "spot" | "Spot" => self.push_one_of(here.spot, key),
            "do" => self.push_one_of(here.activity, key),
            "to do" => {
                self.infinitive = true;
                self.push_one_of(here.activity, key);
                self.infinitive = false;
            }
            "object" => self.push_value(Factor::Object.values()[world.object], Factor::Object, world.object),
            "colour" => self.push_value(Factor::Colour.values()[world.colour], Factor::Colour, world.colour),
            "look" => self.push_one_of(OBJECTS[world.object].look, key),
            "play" => self.push_one_of(OBJECTS[world.object].play, key),
            "friend" => {
                let animal = world.companion.expect("lines about the animal are told only if there is one");
                self.push_value(Factor::Companion.values()[animal], Factor::Companion, animal);
            }
            "weather" => {
                self.push_synonym(weather_words(world.weather, world.time), Factor::Weather, world.weather)
            }
            "time" => self.push_value(Factor::Time.values()[world.time], Factor::Time, world.time),
            "at time" | "At time" => self.push_value(AT_TIME[world.time], Factor::Time, world.time),
            "mood" => self.push_synonym(MOOD_WORDS[world.mood], Factor::Mood, world.mood),
            "said" | "said," => self.push_quotation(lines::SPEECH[world.mood], slot.ends_with(','), key),
            "reply" | "reply," => self.push_quotation(lines::REPLY[world.mood], slot.ends_with(','), key),
            _ => unreachable!("no slot {{{slot}}}"),
        }
    }

    fn inflect(&mut self, form: &str, word: &str) {
        let plural = match form {
            "v" | "n" => self.is_plural(),
            "w" => false,
            "z" => true,
            _ => unreachable!("no form {form}"),
        };
        if form == "n" {
            return self.push(&format!("{word}{}", if plural { "s" } else { "" }));
        }
        if self.infinitive {
            return self.push(word);
        }
        let verb = match word {
            "speak" => {
                let verbs = lines::SPEAK[self.world.mood];
                verbs[self.below(verbs.len())]
            }
            word => word,
        };
        self.reveal(Factor::Tense, self.world.tense as usize);
        let verb = conjugate(verb, self.world.tense, plural);
        self.push(&verb);
    }

    fn push_one_of(&mut self, choices: &[&'static str], key: Option<Factor>) {
        let choice = choices[self.below(choices.len())];
        self.expand(choice, key);
    }

    fn push_synonym(&mut self, words: &[&str], factor: Factor, value: usize) {
        let word = words[self.below(words.len())];
        self.push_value(word, factor, value);
    }

    fn push_quotation(&mut self, quotations: &[&'static str], comma: bool, key: Option<Factor>) {
        let quotation = self.pick(quotations);
        match quotation.strip_suffix('.') {
            Some(open) if comma => {
                self.expand(open, key);
                self.push(",");
            }
            _ => self.expand(quotation, key),
        }
    }

    fn is_plural(&self) -> bool {
        self.subject == Subject::WithCompanion || self.world.second.is_some()
    }

    fn push_subject(&mut self) {
        let clear = self.since_named.is_some_and(|n| n < 4);
        if clear && self.chance(65) {
            self.push_pronoun();
        } else {
            self.push_names();
        }
    }

    fn push_pronoun(&mut self) {
        self.reveal(Factor::Number, usize::from(self.is_plural()));
        self.push_gendered(["she", "he", "they"]);
    }

    /// The form for a woman, a man, or several.
    fn push_gendered(&mut self, forms: [&str; 3]) {
        if self.is_plural() {
            self.push(forms[2]);
        } else {
            let gender = gender(self.world.lead);
            self.reveal(Factor::Gender, gender);
            self.push(forms[gender]);
        }
    }

    fn push_name(&mut self, name: usize) {
        self.reveal(Factor::Gender, gender(name));
        self.push_value(Factor::Name.values()[name], Factor::Name, name);
    }

    fn push_names(&mut self) {
        self.push_name(self.world.lead);
        if let Some(second) = self.world.second {
            self.push(" ");
            self.reveal(Factor::Number, 1);
            self.push("and ");
            self.push_name(second);
        } else if self.subject == Subject::WithCompanion {
            self.push(" ");
            self.reveal(Factor::Number, 1);
            self.push(["and her ", "and his "][gender(self.world.lead)]);
            self.slot("friend", None);
        } else {
            self.reveal(Factor::Number, 0);
        }
        self.since_named = Some(0);
    }

    fn push_introduction(&mut self) {
        let gender = gender(self.world.lead);
        if self.is_plural() {
            self.reveal(Factor::Number, 1);
            self.push("two friends named ");
        } else {
            self.reveal(Factor::Number, 0);
            self.push("a ");
            self.reveal(Factor::Gender, gender);
            self.push(["girl named ", "boy named "][gender]);
        }
        self.push_names();
    }
}

/// A number below `n`, from 32 bits of the stream.
pub(crate) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize
}

/// The first half of the names are women's.
fn gender(name: usize) -> usize {
    name * 2 / Factor::Name.values().len()
}

const AT_TIME: [&str; 5] = ["at dawn", "in the morning", "in the afternoon", "in the evening", "at night"];

const MOOD_WORDS: [&[&str]; 8] = [
    &["happy", "glad", "cheerful"],
    &["sad", "unhappy"],
    &["angry", "furious"],
    &["afraid", "scared", "frightened"],
    &["tired", "weary", "sleepy"],
    &["curious"],
    &["proud"],
    &["calm", "peaceful"],
];

fn weather_words(weather: usize, time: usize) -> &'static [&'static str] {
    match weather {
        0 if matches!(time, 1 | 2) => &["sunny", "bright", "clear"],
        0 => &["clear"],
        1 => &["rainy", "wet"],
        2 => &["windy", "breezy"],
        3 => &["snowy"],
        4 => &["foggy", "misty"],
        _ => &["stormy"],
    }
}
