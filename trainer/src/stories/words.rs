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
                words: "Mia Anna Lily Emma Sara Nora Ruby Zoe",
            },
            Group {
                forms: &["he", "He", "his", "boy"],
                words: "Tom Ben Max Sam Leo Jack Hugo Noah",
            },
        ],
    },
    list!("pal", "Pip Nutmeg Clover Waffle Ginger Toffee Bubble Rusty"),
    list!(
        "kind",
        "rabbit mouse kitten puppy duck frog squirrel turtle pony lamb bear otter mole robin panda owl"
    ),
    list!(
        "place",
        "beach park farm market harbour castle forest river lake garden meadow village fountain mill school zoo"
    ),
    list!(
        "food",
        "bread cheese apples pears cherries grapes nuts berries plums carrots popcorn toast pie cookies peaches cake"
    ),
    list!("colour", "red blue green yellow pink purple golden silver"),
    list!(
        "object",
        "ball kite drum boat bell hat cup lamp box coin key book doll train whistle flute ring shell feather scarf"
    ),
    list!("thief", "fox crow magpie monkey goose goat weasel raven"),
    list!(
        "weather",
        "sunny windy rainy snowy foggy frosty cloudy warm chilly misty calm breezy stormy mild hot damp"
    ),
    list!(
        "day",
        "morning afternoon evening holiday weekend Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
    ),
    list!("went", "walked hurried skipped wandered strolled marched raced hiked"),
    list!(
        "trait",
        "kind brave curious cheerful gentle lively patient friendly polite bold daring thoughtful dreamy careful
         playful generous shy sleepy quick wise nervous silly messy clumsy loyal helpful noble good smart mighty
         fearless young"
    ),
    list!(
        "look",
        "tiny little big shiny dusty pretty strange funny lovely fine round perfect beautiful rare fancy heavy"
    ),
    list!("under", "under behind beside near"),
    list!(
        "landmark",
        "bench log rock bush gate fence wall cart crate sign stump hedge ladder table tent statue"
    ),
    list!(
        "praise",
        "wonderful marvellous delightful fantastic glorious superb brilliant dazzling"
    ),
    list!("cried", "shouted whispered laughed sang gasped squeaked yelled sighed"),
    list!(
        "danced",
        "danced jumped clapped twirled hopped cheered giggled wriggled"
    ),
    list!(
        "mood",
        "happy proud lucky merry glad rich excited jolly special joyful pleased important smug content cosy grand"
    ),
    list!("king", "king queen lark pirate prince captain wizard clown"),
    list!("naughty", "naughty cheeky greedy sneaky hungry grumpy wicked jealous"),
    list!(
        "bravely",
        "bravely quickly calmly boldly gently politely quietly cleverly patiently kindly slowly carefully happily
         proudly swiftly neatly"
    ),
    list!(
        "gloomy",
        "gloomy muddy dark slippery smelly spooky lonely slimy sticky creepy crooked mossy cold dirty wobbly leafy"
    ),
    list!("roof", "roof branch chimney balcony cliff ledge tower treetop"),
    list!("pond", "pond well ditch pool hole puddle canal swamp"),
    list!("sack", "sack basket boot chest cupboard nest drawer bucket"),
    list!("mud", "mud paint ink glue syrup custard jam tar"),
    list!("tool", "rope hook net stick rake broom pole fork"),
    list!("hug", "hug kiss medal cuddle bow pat present wink"),
    list!("dragon", "dragon giant ghost mermaid rainbow rocket unicorn comet"),
    list!("stars", "stars clouds fireflies bats moths shadows crickets owls"),
    list!("bed", "bed pillow desk chair door window wardrobe piano"),
];
