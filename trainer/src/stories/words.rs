//! The word lists of the story grammar.
//!
//! Three properties make the stories easy to parse and to learn, and the tests hold them: every word is an ASCII
//! word without spaces, no word of a list begins another word of it, and no word stands in two lists.

/// The words that may fill a place, drawn uniformly.
#[derive(Clone, Copy, Debug)]
pub struct List<'a> {
    /// What the templates call it: `{name}` binds, `[name]` draws afresh.
    pub name: &'a str,
    /// Names of the derived forms, as in `{hero.she}`; the word itself is the form without a name.
    pub forms: &'a [&'a str],
    /// The words, by group: all words of a group share their derived forms.
    pub groups: &'a [Group<'a>],
}

/// Words of a [`List`] with the same derived forms.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// One entry for each name in [`List::forms`].
    pub forms: &'a [&'a str],
    /// The words, separated by white space.
    pub words: &'a str,
}

/// A list without derived forms.
macro_rules! list {
    ($name:literal, $words:literal) => {
        List {
            name: $name,
            forms: &[],
            groups: &[Group {
                forms: &[],
                words: $words,
            }],
        }
    };
}

/// All lists of the built-in grammar. The first eight are bound by `{…}`: they stay the same through a story.
pub(super) const LISTS: &[List<'static>] = &[
    List {
        name: "hero",
        forms: &["she", "She", "her", "girl"],
        groups: &[
            Group {
                forms: &["she", "She", "her", "girl"],
                words: "Mia Anna Lily Emma Sara Nora Ruby Zoe Grace Clara Alice Molly Rosa Jane Kate Ivy",
            },
            Group {
                forms: &["he", "He", "his", "boy"],
                words: "Tom Ben Max Sam Leo Jack Finn Oscar Hugo Noah Peter Luke Adam Daniel Felix Victor",
            },
        ],
    },
    list!(
        "pal",
        "Pip Dot Bramble Nutmeg Pepper Clover Waffle Ginger Toffee Pickle Bubbles Fern Sprout Rusty Smudge Tumble
         Whiskers Acorn Maple Noodle Cocoa Domino Fudge Jingle Mango Patch Pumpkin Scout Twig Ziggy Biscuit Hopper"
    ),
    list!(
        "kind",
        "rabbit mouse hedgehog kitten puppy duckling frog squirrel turtle pony lamb bear otter mole robin penguin
         deer beaver hamster panda koala donkey badger lizard"
    ),
    list!(
        "place",
        "beach park farm market harbour castle forest river lake garden meadow village fountain mill school library
         zoo fair playground bakery lighthouse museum bridge orchard valley station palace theatre stable waterfall
         campsite mountain"
    ),
    list!(
        "food",
        "bread cheese apples pears cherries grapes nuts berries plums carrots pancakes popcorn toast pie cookies
         peaches cake pizza crackers oranges sandwiches chocolate raisins scones"
    ),
    list!(
        "colour",
        "red blue green yellow pink purple white black brown grey golden silver striped spotted crimson turquoise"
    ),
    list!(
        "object",
        "ball kite drum boat bell hat cup lamp box coin key book doll train whistle flute ring shell feather scarf
         mitten lantern mirror marble puppet robot clock umbrella ribbon pebble spoon teapot bottle crown jar mug
         violin trumpet wagon candle"
    ),
    list!(
        "thief",
        "fox crow magpie monkey goose goat weasel raven raccoon parrot gull ferret wolf jackdaw llama pelican"
    ),
    list!(
        "weather",
        "sunny windy rainy snowy foggy frosty cloudy warm chilly misty calm breezy stormy mild bright hot"
    ),
    list!(
        "day",
        "morning afternoon evening holiday weekend Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
    ),
    list!("went", "walked hurried skipped wandered strolled marched raced hiked"),
    list!(
        "trait",
        "kind brave curious cheerful gentle lively patient friendly polite bold daring thoughtful dreamy careful
         playful generous"
    ),
    list!(
        "nature",
        "shy sleepy fluffy chubby quick wise bouncy fuzzy plump tame nervous silly messy dizzy clumsy cuddly"
    ),
    list!(
        "look",
        "tiny little big shiny dusty pretty strange funny lovely fine splendid mysterious beautiful rare fancy huge"
    ),
    list!("under", "under behind beside near"),
    list!(
        "landmark",
        "bench log rock bush gate fence wall cart crate sign stump hedge ladder table tent statue tree shed bicycle
         swing scarecrow mushroom boulder doghouse"
    ),
    list!(
        "praise",
        "wonderful marvellous delightful fantastic glorious superb brilliant dazzling"
    ),
    list!("cried", "cried shouted whispered laughed called sang gasped squeaked"),
    list!(
        "danced",
        "danced jumped clapped twirled hopped cheered giggled wriggled"
    ),
    list!(
        "mood",
        "happy proud lucky merry glad rich excited jolly special joyful pleased important"
    ),
    list!("king", "king queen lark pirate prince captain wizard clown"),
    list!(
        "naughty",
        "naughty cheeky greedy sneaky sly hungry grumpy wicked crafty noisy jealous rude"
    ),
    list!(
        "bravely",
        "bravely quickly calmly boldly gently politely quietly cleverly patiently kindly slowly carefully happily
         proudly swiftly neatly"
    ),
    list!(
        "roof",
        "roof branch chimney balcony cliff ledge tower steeple mast treetop windmill shelf"
    ),
    list!(
        "tool",
        "rope hook net stick rake broom pole fork string spade ruler wire"
    ),
    list!(
        "pond",
        "pond well ditch pool hole puddle pit moat canal tub swamp barrel"
    ),
    list!(
        "sack",
        "sack basket boot chest haystack cupboard nest bin drawer bucket pipe cave"
    ),
    list!(
        "mud",
        "mud paint ink glue syrup custard tar jam honey soup butter slime"
    ),
    list!(
        "clever",
        "clever loyal helpful faithful noble trusty good true useful fearless mighty smart"
    ),
    list!("hug", "hug kiss medal cuddle bow pat present wink"),
    list!("bed", "bed pillow desk chair door window wardrobe piano"),
    list!("stars", "stars moon fireflies bats moths shadows crickets owls"),
    list!("chatted", "chatted hummed whistled smiled joked yawned grinned munched"),
];
