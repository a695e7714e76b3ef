//! What happens in a story: its beats, and how its factors change.

use monosema_core::Seed;
use rand_chacha::ChaCha8Rng;

use crate::{
    factors::{Factor, Record, index},
    lines,
    template::{Subject, Teller, World, below},
    verbs::Tense,
    words::ANIMALS,
};

/// A story and the factors along it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Story {
    pub(crate) text: String,
    pub(crate) record: Record,
}

/// The story `id` of a set (`"train"`, `"heldout"`, …). Every story has its own stream of random numbers: any one can
/// be told again without those before it.
pub(crate) fn tell(seed: Seed, set: &str, id: u64) -> Story {
    let mut rng = seed.stream(&format!("demo-stories/{set}/{id}"));
    let world = draw_world(&mut rng);
    let mut plot = Plot { teller: Teller::new(rng, world), holding: Holding::Nothing, last: None };
    plot.begin();
    plot.middle();
    plot.end();
    Story { text: plot.teller.text, record: plot.teller.record }
}

fn draw_world(rng: &mut ChaCha8Rng) -> World {
    let mut draw = |factor: Factor| below(rng, factor.values().len());
    let (lead, place) = (draw(Factor::Name), draw(Factor::Place));
    let mut world = World {
        lead,
        second: None,
        companion: None,
        place,
        old_place: place,
        object: draw(Factor::Object),
        colour: draw(Factor::Colour),
        weather: draw(Factor::Weather),
        time: draw(Factor::Time),
        mood: draw(Factor::Mood),
        tense: Tense::Past,
    };
    if below(rng, 100) < 40 {
        world.tense = Tense::Present;
    }
    if below(rng, 100) < 30 {
        let names = Factor::Name.values().len();
        world.second = Some((lead + 1 + below(rng, names - 1)) % names);
    }
    if below(rng, 100) < 65 {
        world.companion = Some(below(rng, Factor::Companion.values().len()));
    }
    world
}

/// Where the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holding {
    /// Not yet spoken of, or given away.
    Nothing,
    /// Looked for.
    Wanted,
    /// In hand.
    Held,
}

/// What may happen in the middle of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Activity,
    Event,
    Scene,
    Weather,
    Time,
    Companion,
    Dialogue,
    Journey,
    Object,
}

/// How likely each step is, in percent.
const STEPS: [(Step, usize); 9] = [
    (Step::Activity, 16),
    (Step::Event, 20),
    (Step::Scene, 9),
    (Step::Weather, 10),
    (Step::Time, 8),
    (Step::Companion, 10),
    (Step::Dialogue, 9),
    (Step::Journey, 10),
    (Step::Object, 8),
];

struct Plot {
    teller: Teller,
    holding: Holding,
    last: Option<Step>,
}

impl Plot {
    fn begin(&mut self) {
        self.sentence("opening", lines::OPENING, None);
        if self.teller.chance(55) {
            self.scene();
        }
        if self.teller.chance(35) {
            self.weather();
        }
        if self.teller.world.companion.is_some() {
            self.sentence("companion", lines::COMPANION, None);
        }
        if self.teller.chance(50) {
            self.holding = Holding::Held;
            self.sentence("object", lines::HAVE, None);
            self.sentence("object", lines::LOOK, None);
        } else {
            self.holding = Holding::Wanted;
            self.sentence("object", lines::SEEK, None);
        }
    }

    fn middle(&mut self) {
        let steps = 4 + self.teller.below(4);
        for _ in 0..steps {
            let step = self.draw_step();
            match step {
                Step::Activity => self.sentence("activity", lines::ACTIVITY, None),
                Step::Event => self.event(),
                Step::Scene => self.scene(),
                Step::Weather => self.change_weather(),
                Step::Time => self.pass_time(),
                Step::Companion => self.companion(),
                Step::Dialogue => self.dialogue(),
                Step::Journey => self.journey(),
                Step::Object => self.object(),
            }
            self.last = Some(step);
        }
    }

    fn draw_step(&mut self) -> Step {
        loop {
            let mut left = self.teller.below(100);
            let drawn = STEPS.iter().find(|(_, share)| {
                let hit = left < *share;
                left = left.saturating_sub(*share);
                hit
            });
            let step = drawn.expect("the shares add up to 100").0;
            let possible = step != Step::Companion || self.teller.world.companion.is_some();
            if possible && self.last != Some(step) {
                return step;
            }
        }
    }

    fn end(&mut self) {
        match self.holding {
            Holding::Wanted if self.teller.chance(65) => {
                self.sentence("object", lines::FIND, None);
                self.holding = Holding::Held;
                self.feel(&["happy", "proud", "calm"]);
            }
            Holding::Wanted => {
                self.sentence("object", lines::SEARCH, None);
                self.feel(&["sad", "tired", "angry"]);
            }
            Holding::Held if self.teller.chance(35) => {
                self.sentence("object", lines::GIVE, None);
                self.holding = Holding::Nothing;
                self.feel(&["happy", "proud"]);
            }
            Holding::Held | Holding::Nothing => self.event(),
        }
        if self.teller.chance(45) {
            self.dialogue();
        }
        let mood = self.teller.world.mood;
        if self.teller.chance(65) {
            self.sentence("closing", lines::CLOSING[mood], Some(Factor::Mood));
        } else {
            let whatever = if self.holding == Holding::Held { 3 } else { 2 };
            self.sentence("closing", &lines::CLOSING_ANY[..whatever], None);
        }
    }

    fn sentence(&mut self, beat: &str, lines: &[&'static str], key: Option<Factor>) {
        let line = self.teller.pick(lines);
        self.line(beat, line, key);
    }

    fn line(&mut self, beat: &str, line: &'static str, key: Option<Factor>) {
        // Two friends are company enough: only one person alone goes with the animal as `they`.
        let world = &self.teller.world;
        let may =
            matches!(beat, "journey" | "closing") && world.companion.is_some() && world.second.is_none();
        let known = self.teller.record.value(Factor::Companion, usize::MAX).is_some();
        let subject =
            if may && known && self.teller.chance(40) { Subject::WithCompanion } else { Subject::Lead };
        self.teller.record.set(self.teller.next_sentence(), Factor::Beat, index(Factor::Beat, beat));
        self.teller.tell(line, subject, key);
    }

    fn scene(&mut self) {
        self.sentence("scene", self.teller.world.here().scene, None);
    }

    fn weather(&mut self) {
        let weather = self.teller.world.weather;
        let table = if self.teller.world.here().indoors { lines::WEATHER_INDOORS } else { lines::WEATHER };
        self.sentence("weather", table[weather], Some(Factor::Weather));
    }

    fn change_weather(&mut self) {
        if self.teller.world.here().indoors || self.teller.chance(35) {
            return self.weather();
        }
        let count = Factor::Weather.values().len();
        self.teller.world.weather = (self.teller.world.weather + 1 + self.teller.below(count - 1)) % count;
        let weather = self.teller.world.weather;
        self.sentence("weather", lines::WEATHER_CHANGE[weather], Some(Factor::Weather));
        if self.teller.chance(40) {
            self.weather();
        }
    }

    fn pass_time(&mut self) {
        if self.teller.chance(40) {
            let time = self.teller.world.time;
            return self.sentence("time", lines::TIME[time], Some(Factor::Time));
        }
        let time = (self.teller.world.time + 1) % Factor::Time.values().len();
        self.teller.world.time = time;
        self.sentence("time", lines::TIME_CHANGE[time], Some(Factor::Time));
    }

    fn companion(&mut self) {
        let animal = self.teller.world.companion.expect("the step is drawn only if there is an animal");
        if self.teller.chance(65) {
            self.sentence("companion", ANIMALS[animal], None);
        } else {
            self.sentence("companion", lines::TOGETHER, None);
        }
    }

    fn event(&mut self) {
        let count = Factor::Mood.values().len();
        self.teller.world.mood = (self.teller.world.mood + 1 + self.teller.below(count - 1)) % count;
        let mood = self.teller.world.mood;
        self.sentence("event", lines::EVENT[mood], Some(Factor::Mood));
        if self.teller.chance(75) {
            self.sentence("feeling", lines::FEELING[mood], Some(Factor::Mood));
        }
        if self.teller.chance(30) {
            self.dialogue();
        }
    }

    /// Something has brought one of `moods`.
    fn feel(&mut self, moods: &[&str]) {
        let mood = moods[self.teller.below(moods.len())];
        self.teller.world.mood = index(Factor::Mood, mood);
        let mood = self.teller.world.mood;
        self.sentence("feeling", lines::FEELING[mood], Some(Factor::Mood));
    }

    fn dialogue(&mut self) {
        self.sentence("dialogue", lines::DIALOGUE, Some(Factor::Mood));
        if self.teller.chance(55) {
            self.sentence("dialogue", lines::ANSWER, Some(Factor::Mood));
        }
    }

    fn journey(&mut self) {
        let count = Factor::Place.values().len();
        self.teller.world.old_place = self.teller.world.place;
        self.teller.world.place = (self.teller.world.place + 1 + self.teller.below(count - 1)) % count;
        self.teller.text.push('\n');
        self.sentence("journey", lines::JOURNEY, None);
        if self.teller.chance(60) {
            self.scene();
        }
    }

    fn object(&mut self) {
        match self.holding {
            Holding::Wanted if self.teller.chance(50) => self.sentence("object", lines::SEARCH, None),
            Holding::Wanted => {
                self.sentence("object", lines::FIND, None);
                self.holding = Holding::Held;
                self.feel(&["happy", "proud", "curious"]);
            }
            Holding::Held if self.teller.chance(65) => self.sentence("object", lines::PLAY, None),
            Holding::Held => {
                self.sentence("object", lines::LOSE, None);
                self.holding = Holding::Wanted;
                self.feel(&["sad", "angry", "afraid"]);
            }
            Holding::Nothing => self.scene(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_repeat_and_differ() {
        assert_eq!(tell(Seed(1), "train", 7), tell(Seed(1), "train", 7));
        let others = [tell(Seed(1), "train", 8), tell(Seed(2), "train", 7), tell(Seed(1), "heldout", 7)];
        assert!(others.iter().all(|other| other.text != tell(Seed(1), "train", 7).text));
    }

    #[test]
    fn every_value_occurs_and_every_text_is_clean() {
        let mut seen = std::collections::BTreeSet::new();
        for id in 0..2000 {
            let Story { text, record } = tell(Seed(3), "test", id);
            assert!(text.is_ascii() && text.ends_with(['.', '!', '?', '"']), "{text}");
            for wrong in ["{", "}", "[", "]", "|", "^", "  ", " .", " ,", ".."] {
                assert!(!text.contains(wrong), "{wrong:?} in {text}");
            }
            assert_eq!(text.matches('"').count() % 2, 0, "{text}");
            for span in record.spans(text.len()) {
                assert!(span.0 < span.1 && span.1 <= text.len());
                seen.insert((span.2, span.3));
            }
        }
        let all = Factor::ALL.iter().flat_map(|f| f.values().iter().map(|v| (f.name(), *v)));
        let missing: Vec<_> = all.filter(|pair| !seen.contains(pair)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn keyed_lines_say_where_they_give_their_factor_away() {
        let tables: [(&[&[&str]], &str); 7] = [
            (&lines::WEATHER, "{weather}"),
            (&lines::WEATHER_INDOORS, "{weather}"),
            (&lines::WEATHER_CHANGE, "{weather}"),
            (&lines::TIME, "{time}"),
            (&lines::TIME_CHANGE, "{time}"),
            (&lines::EVENT, "{mood}"),
            (&lines::FEELING, "{mood}"),
        ];
        for (table, slot) in tables {
            for line in table.iter().flat_map(|lines| lines.iter()) {
                assert!(line.contains('^') || line.contains(slot), "{line}");
            }
        }
    }
}
