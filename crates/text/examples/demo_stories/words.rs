//! What belongs to a place, an object or an animal. Tables are in the order of the factor's values.
//!
//! Lines are templates: `template.rs` says how to read them.

/// What a place decides.
pub(crate) struct Place {
    /// Being there.
    pub(crate) at: &'static str,
    /// Whom one meets there.
    pub(crate) helper: &'static str,
    /// Indoors, weather is seen through a window.
    pub(crate) indoors: bool,
    /// What is to be seen there.
    pub(crate) scene: &'static [&'static str],
    /// What one does there.
    pub(crate) activity: &'static [&'static str],
    /// Where a thing may lie there.
    pub(crate) spot: &'static [&'static str],
}

/// What an object decides.
pub(crate) struct Object {
    /// What one does with it.
    pub(crate) play: &'static [&'static str],
    /// How it may look.
    pub(crate) look: &'static [&'static str],
}

pub(crate) const PLACES: [Place; 10] = [
    Place {
        at: "in the forest",
        helper: "woodcutter",
        indoors: false,
        scene: &[
            "Tall trees {z:stand} all around.",
            "Birds {z:sing} in the branches.",
            "Soft moss {w:cover} the stones.",
            "A narrow path {w:wind} between the oaks.",
            "Mushrooms {z:grow} beside the path.",
        ],
        activity: &[
            "{v:pick} some berries",
            "{v:climb} an old oak",
            "{v:gather} dry sticks",
            "{v:follow} the tracks of a deer",
        ],
        spot: &["under a fallen tree", "behind an old oak", "in a pile of leaves", "beside the stream"],
    },
    Place {
        at: "on the beach",
        helper: "lifeguard",
        indoors: false,
        scene: &[
            "The waves {z:roll} over the sand.",
            "Gulls {z:cry} above the water.",
            "Small crabs {z:hide} under the rocks.",
            "The sand {w:be} full of shells.",
            "The air {w:smell} of salt.",
        ],
        activity: &[
            "{v:build} a castle of sand",
            "{v:look} for shells",
            "{v:swim} in the waves",
            "{v:throw} stones into the sea",
        ],
        spot: &["between two rocks", "under the sand", "in a rock pool", "behind a heap of seaweed"],
    },
    Place {
        at: "at the market",
        helper: "seller",
        indoors: false,
        scene: &[
            "People {z:shout} and {z:laugh} between the stalls.",
            "The stalls {z:be} full of apples and cheese.",
            "An old man {w:sell} flowers in the corner.",
            "Everybody {w:look} for something to buy.",
            "There {z:be} baskets and barrels everywhere.",
        ],
        activity: &[
            "{v:buy} some apples",
            "{v:count} {p} coins",
            "{v:taste} the sweet plums",
            "{v:help} to carry the boxes",
        ],
        spot: &["under a stall", "behind a barrel", "between two boxes of fruit", "in a cart of hay"],
    },
    Place {
        at: "in the bakery",
        helper: "baker",
        indoors: true,
        scene: &[
            "Warm bread {w:lie} on the shelves.",
            "The oven {w:glow} in the corner.",
            "Flour {w:cover} the long table.",
            "The whole room {w:smell} of cake.",
            "Rows of cakes {z:stand} in the window.",
        ],
        activity: &[
            "{v:bake} a loaf of bread",
            "{v:mix} flour and milk",
            "{v:eat} a slice of cake",
            "{v:sweep} the floor",
        ],
        spot: &["behind the oven", "under a sack of flour", "on the top shelf", "among the bread tins"],
    },
    Place {
        at: "at the school",
        helper: "teacher",
        indoors: true,
        scene: &[
            "The desks {z:stand} in long rows.",
            "A big clock {w:hang} on the wall.",
            "Chalk dust {w:float} in the air.",
            "Children {z:whisper} behind their books.",
            "A globe {w:stand} on the teacher's desk.",
        ],
        activity: &[
            "{v:write} on the board",
            "{v:learn} a new song",
            "{v:draw} a picture",
            "{v:recite} an old poem",
        ],
        spot: &["under a desk", "behind the blackboard", "in the box of chalk", "on the window sill"],
    },
    Place {
        at: "on the farm",
        helper: "farmer",
        indoors: false,
        scene: &[
            "Hens {z:run} about in the yard.",
            "The cows {z:stand} behind the fence.",
            "A tractor {w:wait} beside the barn.",
            "The barn {w:be} full of hay.",
            "Two pigs {z:lie} in the mud.",
        ],
        activity: &[
            "{v:feed} the hens",
            "{v:milk} a cow",
            "{v:collect} the eggs",
            "{v:carry} hay into the barn",
        ],
        spot: &["behind the barn", "in the hay", "under the old tractor", "beside the well"],
    },
    Place {
        at: "at the harbour",
        helper: "fisherman",
        indoors: false,
        scene: &[
            "Fishing boats {z:swing} on their ropes.",
            "Nets {z:hang} along the wall.",
            "A tall ship {w:lie} at the pier.",
            "Sailors {z:carry} crates up the ramp.",
            "A lighthouse {w:stand} at the end of the pier.",
        ],
        activity: &["{v:catch} a fish", "{v:watch} the ships", "{v:mend} a net", "{v:row} around the pier"],
        spot: &["under a net", "behind a crate", "at the foot of the lighthouse", "in an old rowing boat"],
    },
    Place {
        at: "in the library",
        helper: "librarian",
        indoors: true,
        scene: &[
            "Shelves {z:reach} up to the ceiling.",
            "Nobody {w:make} a sound.",
            "Old maps {z:hang} beside the door.",
            "A lamp {w:burn} on every table.",
            "The pages {z:smell} of dust and leather.",
        ],
        activity: &[
            "{v:learn} about dragons",
            "{v:look} at the pictures of ships",
            "{v:copy} a long poem",
            "{v:search} the shelves",
        ],
        spot: &[
            "between two thick volumes",
            "behind a shelf",
            "under the reading table",
            "on the highest shelf",
        ],
    },
    Place {
        at: "on the mountain",
        helper: "shepherd",
        indoors: false,
        scene: &[
            "The path {w:be} steep and full of stones.",
            "Far below, the valley {w:lie} in silence.",
            "Sheep {z:graze} on the slope.",
            "An eagle {w:circle} over the peak.",
            "A little hut {w:stand} near the top.",
        ],
        activity: &[
            "{v:climb} over the rocks",
            "{v:rest} in the little hut",
            "{v:count} the sheep",
            "{v:drink} from the cold spring",
        ],
        spot: &["in a small cave", "under a ledge", "behind the hut", "beside the spring"],
    },
    Place {
        at: "in the garden",
        helper: "gardener",
        indoors: false,
        scene: &[
            "Roses {z:grow} along the wall.",
            "Bees {z:hum} over the flowers.",
            "A swing {w:hang} from the pear tree.",
            "Rows of beans {z:climb} up their poles.",
            "A frog {w:sit} beside the pond.",
        ],
        activity: &[
            "{v:water} the roses",
            "{v:plant} some beans",
            "{v:dig} up the carrots",
            "{v:play} on the swing",
        ],
        spot: &["under the rose bush", "behind the shed", "in a flower pot", "beside the pond"],
    },
];

pub(crate) const OBJECTS: [Object; 12] = [
    Object {
        play: &["{v:fly} the kite", "{v:run} with the kite"],
        look: &["{w:have} a long tail", "{w:be} made of paper"],
    },
    Object {
        play: &["{v:light} the lantern", "{v:hang} up the lantern"],
        look: &["{w:have} a small door of glass", "{w:be} made of tin"],
    },
    Object {
        play: &["{v:study} the map", "{v:unfold} the map"],
        look: &["{w:be} old and torn", "{w:show} a secret road"],
    },
    Object {
        play: &["{v:fill} the basket", "{v:carry} the basket about"],
        look: &["{w:have} two handles", "{w:be} made of straw"],
    },
    Object {
        play: &["{v:turn} the key in an old lock", "{v:polish} the key"],
        look: &["{w:be} long and heavy", "{w:have} a curly handle"],
    },
    Object {
        play: &["{v:open} the book", "{v:turn} the pages of the book"],
        look: &["{w:have} a hundred pages", "{w:be} full of pictures"],
    },
    Object {
        play: &["{v:throw} the ball", "{v:kick} the ball"],
        look: &["{w:be} round and soft", "{w:be} as light as a feather"],
    },
    Object {
        play: &["{v:wear} the scarf", "{v:fold} the scarf"],
        look: &["{w:be} made of wool", "{w:be} warm and long"],
    },
    Object {
        play: &["{v:play} the flute", "{v:blow} into the flute"],
        look: &["{w:have} six holes", "{w:be} made of wood"],
    },
    Object {
        play: &["{v:sail} the boat in a puddle", "{v:paint} a name on the boat"],
        look: &["{w:have} a tiny sail", "{w:be} as small as a shoe"],
    },
    Object {
        play: &["{v:ring} the bell", "{v:polish} the bell"],
        look: &["{w:have} a bright sound", "{w:be} made of brass"],
    },
    Object {
        play: &["{v:wear} the hat", "{v:throw} the hat into the air"],
        look: &["{w:have} a wide brim", "{w:have} a feather on top"],
    },
];

/// What each animal does; `its` is right for all of them.
pub(crate) const ANIMALS: [&[&str]; 8] = [
    &[
        "The {friend} {w:bark} and {w:wag} its tail.",
        "The {friend} {w:sniff} at the ground.",
        "The {friend} {w:chew} on a stick.",
        "The {friend} {w:run} in circles.",
    ],
    &[
        "The {friend} {w:purr} softly.",
        "The {friend} {w:lick} its paws.",
        "The {friend} {w:chase} a mouse.",
        "The {friend} {w:arch} its back.",
    ],
    &[
        "The {friend} {w:shake} its mane.",
        "The {friend} {w:stamp} its hooves.",
        "The {friend} {w:neigh} loudly.",
        "The {friend} {w:swing} its long tail.",
    ],
    &[
        "The {friend} {w:flap} its wings.",
        "\"Hello! Hello!\" {w:screech} the {friend}.",
        "The {friend} {w:copy} every word.",
        "The {friend} {w:crack} a nut with its beak.",
    ],
    &[
        "The {friend} {w:chew} on some grass.",
        "The {friend} {w:bleat} and {w:jump} over a stone.",
        "The {friend} {w:butt} its horns against a post.",
        "The {friend} {w:eat} an old sock.",
    ],
    &[
        "The {friend} {w:hop} ahead.",
        "The {friend} {w:prick} up its long ears.",
        "The {friend} {w:nibble} at a carrot.",
        "The {friend} {w:thump} its back foot.",
    ],
    &[
        "The {friend} {w:quack} three times.",
        "The {friend} {w:waddle} behind.",
        "The {friend} {w:splash} through a puddle.",
        "The {friend} {w:shake} its wet feathers.",
    ],
    &[
        "The {friend} {w:bray} and {w:stop}.",
        "The {friend} {w:carry} the bags.",
        "The {friend} {w:trot} along slowly.",
        "The {friend} {w:flick} its big ears.",
    ],
];
