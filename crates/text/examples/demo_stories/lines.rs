//! The sentences of the stories, by the part they play. `template.rs` says how to read them.

pub(crate) const OPENING: &[&str] = &[
    "One {weather} {time}, {S} {v:go} {to}.",
    "One {weather} {time}, {S} {v:be} {at}.",
    "On a {weather} {time}, {S} {v:walk} {to}.",
    "It {w:be} a {weather} {time}, and {S} {v:be} {at}.",
    "It {w:be} {time}. {S} {v:hurry} {to}. The weather {w:be} {weather}.",
    "{S} {v:be} {at}. It {w:be} a {weather} {time}.",
    "{S} {v:come} {to} {at time}. It {w:be} {weather}.",
    "The {time} {w:be} {weather} when {S} {v:arrive} {at}.",
    "There {v:be} {child} who {v:love} the {place}. One {weather} {time}, {s} {v:go} there.",
    "There {v:be} {child} who {v:live} near the {place}. It {w:be} a {weather} {time}.",
    "{S} {v:live} near the {place}. Every {time}, {s} {v:walk} there. Today it {w:be} {weather}.",
    "Nobody {w:be} {at} {at time} but {S}. It {w:be} {weather}.",
    "{At time}, {S} {v:start} for the {place}. The weather {w:be} {weather}.",
    "The {place} {w:be} quiet {at time}. Only {S} {v:be} there. It {w:be} {weather}.",
];

/// By weather: seen from under the open sky.
pub(crate) const WEATHER: [&[&str]; 6] = [
    &[
        "There {w:be} ^not a cloud in the sky.",
        "The sky {w:be} ^clear and still.",
        "It {w:be} so ^clear that one {w:can} see for miles.",
        "^Clear light {w:lie} over the {place}.",
    ],
    &[
        "The ^rain {w:fall} on {p} {n:head}.",
        "{P} {n:coat} {v:be} wet from the ^rain.",
        "There {z:be} ^puddles everywhere.",
        "^Rain {w:drip} from {p} {n:nose}.",
    ],
    &[
        "The ^wind {w:pull} at {p} {n:coat}.",
        "A strong ^wind {w:blow} from the north.",
        "The ^wind {w:whistle} around the corner.",
        "Leaves {z:fly} about in the ^wind.",
    ],
    &[
        "The ^snow {w:lie} deep on the ground.",
        "White ^flakes {z:dance} in the air.",
        "The ^snow {w:crunch} under {p} boots.",
        "Everything {w:be} white with ^snow.",
    ],
    &[
        "The ^fog {w:be} as thick as milk.",
        "Nothing {w:can} be seen through the ^fog.",
        "^Mist {w:float} over the ground.",
        "The ^fog {w:swallow} every sound.",
    ],
    &[
        "^Thunder {w:roll} in the distance.",
        "^Lightning {w:flash} across the sky.",
        "The ^storm {w:shake} everything.",
        "Black ^clouds {z:race} over the {place}.",
    ],
];

/// By weather: heard and seen from indoors.
pub(crate) const WEATHER_INDOORS: [&[&str]; 6] = [
    &["^Clear light {w:come} through the window.", "Outside, there {w:be} ^not a cloud in the sky."],
    &["Outside, the ^rain {w:tap} on the window.", "^Rain {w:run} down the glass."],
    &["The ^wind {w:rattle} the door.", "Outside, the ^wind {w:whistle}."],
    &["Outside, ^snow {w:fall} without a sound.", "^Snow {w:lie} on the window sill."],
    &["Outside, the ^fog {w:hide} the street.", "^Mist {w:press} against the window."],
    &["Outside, ^thunder {w:roll}.", "^Lightning {w:flash} behind the window."],
];

/// By the weather that begins.
pub(crate) const WEATHER_CHANGE: [&[&str]; 6] = [
    &[
        "Then the sky ^{w:clear}.",
        "Soon there {w:be} ^no cloud left.",
        "Little by little it {w:become} ^{weather}.",
    ],
    &["Then it {w:begin} to ^rain.", "Suddenly ^rain {w:pour} down.", "The first drops of ^rain {z:fall}."],
    &["Then a strong ^wind {w:rise}.", "The ^wind {w:begin} to blow.", "It {w:become} ^{weather}."],
    &[
        "Then it {w:begin} to ^snow.",
        "The first ^flakes of snow {z:fall}.",
        "It {w:become} cold, and ^snow {w:come} down.",
    ],
    &["Then ^fog {w:come} up from the river.", "Soon the ^fog {w:be} everywhere.", "A grey ^mist {w:rise}."],
    &["Then a ^storm {w:break} loose.", "All at once ^thunder {w:crash}.", "A ^storm {w:come} up quickly."],
];

/// By the time that has come.
pub(crate) const TIME_CHANGE: [&[&str]; 5] = [
    &["Then ^dawn {w:come} at last.", "At ^dawn, the first birds {z:wake}."],
    &["Soon it {w:be} ^morning.", "The ^morning {w:come} quickly.", "Then the ^morning bells {z:ring}."],
    &[
        "By now it {w:be} ^afternoon.",
        "The ^afternoon {w:come}.",
        "Lunch {w:be} over, and the long ^afternoon {w:begin}.",
    ],
    &[
        "Slowly ^evening {w:fall}.",
        "By now it {w:be} ^evening.",
        "The ^sun {w:go} down, and evening {w:come}.",
    ],
    &[
        "Then it {w:be} ^night.",
        "The ^stars {z:come} out. It {w:be} night.",
        "^Night {w:fall} over the {place}.",
    ],
];

/// By the time that it is.
pub(crate) const TIME: [&[&str]; 5] = [
    &["Most people {z:be} still ^asleep.", "It {w:be} so ^early that no cock {w:crow} yet."],
    &["It {w:be} still ^early in the day.", "The whole ^day {w:lie} ahead.", "^Breakfast {w:be} just over."],
    &["The ^day {w:be} half over.", "Nobody {w:be} in a hurry at this hour of the ^afternoon."],
    &["The ^lamps {z:be} lit one by one.", "It {w:be} nearly time for ^supper.", "The ^shadows {z:be} long."],
    &[
        "The ^moon {w:hang} over the {place}.",
        "Everyone else {w:be} in ^bed.",
        "An ^owl {w:call} in the dark.",
    ],
];

pub(crate) const COMPANION: &[&str] = &[
    "{P} {friend} {w:come} too.",
    "{S} {v:bring} {p} {friend} along.",
    "A [small|young|friendly|clever|lazy] {friend} {w:follow} {o}.",
    "{S} {v:have} a [small|young|friendly|clever|lazy] {friend}.",
    "Beside {o} {w:walk} a [small|young|friendly|clever|lazy] {friend}.",
    "{S} {v:go} nowhere without {p} {friend}.",
];

/// What the companion does with its people.
pub(crate) const TOGETHER: &[&str] = &[
    "{S} {v:stroke} the {friend}.",
    "{S} {v:give} the {friend} something to eat.",
    "The {friend} {w:stay} close to {o}.",
    "The {friend} {w:look} up at {o}.",
    "\"Come here!\" {S} {v:tell} the {friend}.",
];

/// The object is wanted.
pub(crate) const SEEK: &[&str] = &[
    "{S} {v:be} looking for a {colour} {object}.",
    "{S} {v:want} to find a {colour} {object}.",
    "{S} {v:have} lost a {colour} {object} there.",
    "Somewhere {at}, there {w:be} a {colour} {object}. {S} {v:want} it.",
    "The {helper} {w:have} told {o} about a {colour} {object}. {S} {v:begin} to look for it.",
    "\"Have you seen a {colour} {object}?\" {S} {v:ask} the {helper}.",
];

/// The object is there from the beginning.
pub(crate) const HAVE: &[&str] = &[
    "{S} {v:have} a {colour} {object} with {o}.",
    "In {p} {n:hand} {s} {v:hold} a {colour} {object}.",
    "{S} {v:carry} a {colour} {object}.",
    "{P} grandmother {w:have} given {o} a {colour} {object}.",
    "{S} {v:have} a new {object}. It {w:be} {colour}.",
    "{P} {object} {w:be} {colour} and {w:look} beautiful.",
];

pub(crate) const LOOK: &[&str] = &["The {object} {look}.", "The {colour} {object} {look}."];

pub(crate) const PLAY: &[&str] = &["{S} {play}.", "{S} {play} again and again.", "For a while, {s} {play}."];

pub(crate) const SEARCH: &[&str] = &[
    "{S} {v:look} {spot}, but the {object} {w:be} not there.",
    "There {w:be} no {object} {spot}.",
    "{S} {v:search} everywhere for the {colour} {object}.",
    "\"Where is the {object}?\" {S} {v:ask}. The {helper} {w:do} not know.",
];

pub(crate) const FIND: &[&str] = &[
    "At last {S} {v:find} the {colour} {object} {spot}.",
    "{Spot}, something {colour} {w:shine}. It {w:be} the {object}!",
    "Then the {helper} {w:bring} the {colour} {object}. \"Is this yours?\"",
    "{S} {v:look} {spot}. There {w:lie} the {colour} {object}!",
];

pub(crate) const LOSE: &[&str] = &[
    "Then {S} {v:drop} the {colour} {object}, and it {w:be} gone.",
    "Suddenly the {object} {w:be} gone.",
    "{S} {v:forget} the {colour} {object} {spot}.",
    "A thief {w:take} the {colour} {object} and {w:run} away.",
];

pub(crate) const GIVE: &[&str] = &[
    "{S} {v:give} the {colour} {object} to the {helper}.",
    "\"This is for you,\" {S} {v:say}, and {v:give} the {helper} the {colour} {object}.",
    "The {helper} {w:like} the {object}, so {S} {v:leave} it there as a present.",
];

pub(crate) const ACTIVITY: &[&str] = &[
    "{S} {do}.",
    "{S} {do}.",
    "Then {S} {do}.",
    "{At}, {s} {do}.",
    "For an hour, {s} {do}.",
    "{S} {v:like} to {to do}.",
    "The {helper} {w:ask} {o} to {to do}.",
    "{S} {do} with the {helper}.",
];

/// By the mood that something brings.
pub(crate) const EVENT: [&[&str]; 8] = [
    &[
        "Then the {helper} {w:tell} {o} a ^funny story.",
        "Then there {w:be} ^music, and everybody {w:dance}.",
        "A ^friend {w:come} and {w:hug} {o}.",
    ],
    &[
        "Then a ^letter with bad news {w:come}.",
        "{P} best friend {w:have} ^left without a word.",
        "Nobody {w:have} ^time to play with {o}.",
    ],
    &[
        "Then a boy ^{w:push} {o} and {w:run} away.",
        "Someone {w:have} ^stolen {p} lunch.",
        "The {helper} ^{w:blame} {o} for nothing.",
    ],
    &[
        "Suddenly there {w:be} a ^terrible noise.",
        "A dark ^shadow {w:move} behind {o}.",
        "Something ^{w:growl} close by.",
    ],
    &[
        "It {w:have} been a ^long way.",
        "{S} {v:have} ^carried heavy stones for an hour.",
        "{S} {v:have} not ^slept enough.",
    ],
    &[
        "Then {S} {v:see} a ^tiny door.",
        "There {w:be} a ^strange sign on the wall.",
        "Somebody {w:have} left a ^secret message {spot}.",
    ],
    &["Then {S} {v:win} a ^prize.", "\"^Well done!\" {w:say} the {helper}.", "Everybody ^{w:clap} for {o}."],
    &[
        "Then everything ^{w:become} quiet.",
        "{S} {v:sit} down and {v:take} a ^deep breath.",
        "A soft ^song {w:come} from far away.",
    ],
];

/// By mood: what it makes of a person.
pub(crate) const FEELING: [&[&str]; 8] = [
    &[
        "{S} {v:be} {mood}.",
        "{S} ^{v:laugh} out loud.",
        "{S} ^{v:jump} for joy.",
        "{S} ^{v:smile} from ear to ear.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "Tears ^{z:run} down {p} cheeks.",
        "{S} ^{v:cry} for a long time.",
        "{S} {v:hang} {p} {n:head} and ^{v:sob}.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "{S} {v:stamp} {p} feet in ^anger.",
        "{P} {n:face} {v:turn} ^red with anger.",
        "{S} ^{v:clench} {p} fists.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "{P} knees ^{z:shake}.",
        "{S} {v:want} to ^hide.",
        "{P} {n:heart} {v:beat} ^fast with fear.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "{S} ^{v:yawn} again and again.",
        "{P} legs {z:be} as ^heavy as lead.",
        "{S} {v:rub} {p} ^sleepy eyes.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "{S} ^{v:wonder} what it {w:mean}.",
        "{S} {v:want} to ^know everything about it.",
        "{S} ^{v:lean} forward to see better.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "{S} {v:hold} {p} {n:head} ^high.",
        "{S} {v:stand} as ^tall as {s} {v:can}.",
        "{S} {v:want} to ^show everybody.",
        "How {mood} {s} {v:be}!",
    ],
    &[
        "{S} {v:be} {mood}.",
        "{S} {v:breathe} ^slowly and {v:listen}.",
        "{S} {v:feel} no ^hurry at all.",
        "{P} {n:heart} {v:grow} ^still.",
        "How {mood} {s} {v:be}!",
    ],
];

/// By mood: what such a person says.
pub(crate) const SPEECH: [&[&str]; 8] = [
    &[
        "What a wonderful {time}!",
        "I love the {place}!",
        "This is the best day of all!",
        "Let us sing a song!",
    ],
    &["I want to go home.", "Everything has gone wrong.", "Why does nobody help me?", "I miss my mother."],
    &["That is not fair!", "Go away!", "I will never come back!", "Who did this?"],
    &[
        "What was that noise?",
        "Please do not leave me alone!",
        "I do not like the {place}.",
        "Is somebody there?",
    ],
    &["I need a rest.", "How far is it still?", "I cannot walk any more.", "I could sleep for a week."],
    &["What could this be?", "Who lives {at}?", "I must find out more.", "Why is it so {weather} today?"],
    &[
        "I did it all alone!",
        "Look at me!",
        "Nobody has ever done that before!",
        "Wait until they hear about this!",
    ],
    &[
        "There is no need to hurry.",
        "It is so peaceful here.",
        "All will be well.",
        "I could stay {at} forever.",
    ],
];

/// By mood: how such a person says it.
pub(crate) const SPEAK: [&[&str]; 8] = [
    &["laugh", "cheer", "sing"],
    &["sob", "sigh", "weep"],
    &["shout", "snap", "growl"],
    &["whisper", "gasp", "stammer"],
    &["yawn", "mumble", "groan"],
    &["ask", "wonder"],
    &["boast", "announce", "declare"],
    &["say", "murmur"],
];

/// By mood: what others answer.
pub(crate) const REPLY: [&[&str]; 8] = [
    &["I am glad to see you so happy.", "You are in a good mood today!", "Your joy makes me smile."],
    &["Do not cry.", "Everything will be all right.", "Here, take my handkerchief."],
    &["Calm down, please.", "There is no reason to shout.", "Tell me what happened."],
    &["Do not be afraid.", "It is only the wind.", "I will stay with you."],
    &["You should go to bed.", "Sit down and rest.", "Have a cup of tea."],
    &["That is a good question.", "Nobody knows.", "I will tell you a secret."],
    &["You have every reason to be proud.", "I could not have done it better.", "Bravo!"],
    &["Yes, it is a quiet {time}.", "Stay as long as you like.", "I like it here too."],
];

pub(crate) const DIALOGUE: &[&str] = &[
    "\"{said,}\" {S} ^{v:speak}.",
    "\"{said,}\" {S} ^{v:speak}.",
    "{S} ^{v:speak}, \"{said}\"",
    "\"{said,}\" {S} {v:say} to the {helper}.",
];

pub(crate) const ANSWER: &[&str] = &[
    "\"{reply,}\" {w:say} the {helper}.",
    "\"{reply,}\" the {helper} {w:answer}.",
    "The {helper} {w:nod}. \"{reply}\"",
];

pub(crate) const JOURNEY: &[&str] = &[
    "{S} {v:leave} the {old place} and {v:walk} {to}.",
    "From the {old place}, {s} {v:go} on {to}.",
    "After a long walk, {S} {v:reach} the {place}.",
    "Then {S} {v:go} {to}.",
    "A cart {w:take} {o} from the {old place} {to}.",
    "\"Go {to},\" {w:say} the {old helper}. So {S} {v:go} there.",
];

/// By mood: how it ends.
pub(crate) const CLOSING: [&[&str]; 8] = [
    &["{S} {v:go} home with a ^smile.", "It {w:be} a day to remember, and {S} ^{v:sing} all the way home."],
    &["{S} {v:go} home in ^tears.", "{S} {v:go} to bed early and ^{v:cry}."],
    &["{S} {v:run} home and ^{v:slam} the door.", "{S} {v:go} home without a word, still ^{mood}."],
    &["{S} {v:run} home as ^fast as {s} {v:can}.", "{S} {v:hide} under the ^blanket until it {w:be} over."],
    &["{S} {v:fall} ^asleep at once.", "{S} {v:lie} down and ^{v:sleep} for ten hours."],
    &[
        "{S} {v:think} about the ^mystery all the way home.",
        "{S} {v:decide} to come back and find out ^more.",
    ],
    &["{S} {v:go} home and ^{v:tell} everybody about it.", "From then on, all the people ^{v:know} {name}."],
    &["{S} {v:walk} home ^slowly.", "{S} {v:sit} there ^quietly until the end of the {time}."],
];

/// The end, whatever the mood.
pub(crate) const CLOSING_ANY: &[&str] = &[
    "That {w:be} the end of the {time} {at}.",
    "Then {S} {v:say} goodbye to the {helper} and {v:go} home.",
    "{S} {v:take} the {colour} {object} home.",
];
