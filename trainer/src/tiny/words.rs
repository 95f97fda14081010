//! The closed word lists of the tiny world: eight slots a fact can fill, and six subreddits with the values
//! that make sense in each.
//!
//! No value of one slot occurs inside a value of another, nor in a literal word of a template, so a value seen
//! in a text says which slot it fills. The values are short and common words: a byte-level BPE of a few hundred
//! merges spells most of them in one token.

use serde::{Deserialize, Serialize};

/// The kinds of fact a post can state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Who did it: `roommate`.
    Who,
    /// What they did: `broke`.
    Deed,
    /// To which thing of the author's: `bike`.
    Thing,
    /// When: `last week`.
    When,
    /// Where: `at work`.
    Place,
    /// What the thing cost: `$300`.
    Amount,
    /// How the culprit reacts: `won't pay`.
    Reaction,
    /// What the author thinks of doing: `call the cops`.
    Ask,
}

impl Slot {
    /// Every slot, in the order of [`Slot::index`].
    pub const ALL: [Self; 8] =
        [Self::Who, Self::Deed, Self::Thing, Self::When, Self::Place, Self::Amount, Self::Reaction, Self::Ask];

    /// The slots a post may leave open; the other four are stated in every post.
    pub const OPTIONAL: [Self; 4] = [Self::When, Self::Place, Self::Amount, Self::Reaction];

    /// Position in [`Slot::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The slot's name as templates write it between braces: `who`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Who => "who",
            Self::Deed => "deed",
            Self::Thing => "thing",
            Self::When => "when",
            Self::Place => "place",
            Self::Amount => "amount",
            Self::Reaction => "reaction",
            Self::Ask => "ask",
        }
    }

    /// Every value the slot can take, in the order of a fact's index.
    pub fn values(self) -> &'static [&'static str] {
        match self {
            Self::Who => WHO,
            Self::Deed => DEED,
            Self::Thing => THING,
            Self::When => WHEN,
            Self::Place => PLACE,
            Self::Amount => AMOUNT,
            Self::Reaction => REACTION,
            Self::Ask => ASK,
        }
    }
}

const WHO: &[&str] = &[
    "boyfriend",
    "girlfriend",
    "husband",
    "wife",
    "ex",
    "mom",
    "dad",
    "sister",
    "brother",
    "roommate",
    "neighbor",
    "boss",
    "coworker",
    "landlord",
    "friend",
    "cousin",
    "uncle",
    "manager",
];
const DEED: &[&str] =
    &["broke", "lost", "sold", "stole", "hid", "kept", "took", "ruined", "burned", "wrecked", "scared", "shaved"];
const THING: &[&str] = &[
    "phone", "ring", "dress", "guitar", "laptop", "bike", "car", "camera", "couch", "wallet", "savings", "card",
    "check", "report", "badge", "bonus", "mail", "fence", "boat", "shed", "cat", "dog", "parrot", "rabbit", "puppy",
];
const WHEN: &[&str] = &[
    "yesterday",
    "last night",
    "last week",
    "last month",
    "last year",
    "this morning",
    "on Monday",
    "on Friday",
    "on Sunday",
    "in May",
    "in June",
];
const PLACE: &[&str] = &[
    "at work",
    "at school",
    "at home",
    "at church",
    "at the gym",
    "at a party",
    "on the bus",
    "on a trip",
    "in the yard",
];
const AMOUNT: &[&str] = &["$20", "$50", "$80", "$100", "$200", "$300", "$500", "$900"];
const REACTION: &[&str] = &[
    "won't pay",
    "won't talk",
    "denies it",
    "blames me",
    "ignores me",
    "hates me",
    "laughs",
    "cries",
    "acts normal",
    "wants cash",
];
const ASK: &[&str] = &[
    "quit",
    "sue",
    "leave",
    "wait",
    "break up",
    "move out",
    "get even",
    "get a loan",
    "get a lawyer",
    "call the cops",
    "call the bank",
    "tell HR",
    "let it go",
    "buy a new one",
    "say something",
    "put up signs",
];

/// The pronouns a person of slot [`Slot::Who`] may be given.
pub(crate) fn pronouns(who: &str) -> &'static [&'static str] {
    match who {
        "boyfriend" | "husband" | "dad" | "brother" | "uncle" => &["he"],
        "girlfriend" | "wife" | "mom" | "sister" => &["she"],
        _ => &["he", "she"],
    }
}

/// A subreddit and the values its posts draw from; when, where, how much and how the culprit reacts are the same
/// everywhere.
#[derive(Debug)]
pub struct Topic {
    /// The subreddit's name without `r/`.
    pub subreddit: &'static str,
    who: &'static [&'static str],
    deed: &'static [&'static str],
    thing: &'static [&'static str],
    ask: &'static [&'static str],
}

impl Topic {
    /// The values of `slot` that posts of this subreddit use, a part of [`Slot::values`].
    pub fn values(&self, slot: Slot) -> &'static [&'static str] {
        match slot {
            Slot::Who => self.who,
            Slot::Deed => self.deed,
            Slot::Thing => self.thing,
            Slot::Ask => self.ask,
            other => other.values(),
        }
    }
}

/// The subreddits of the world.
pub const TOPICS: &[Topic] = &[
    Topic {
        subreddit: "relationships",
        who: &["boyfriend", "girlfriend", "husband", "wife", "ex", "friend"],
        deed: &["broke", "lost", "sold", "stole", "hid", "ruined", "burned"],
        thing: &["phone", "ring", "dress", "guitar", "camera", "car"],
        ask: &["break up", "move out", "get even", "leave", "say something", "let it go", "wait"],
    },
    Topic {
        subreddit: "AskReddit",
        who: &["friend", "brother", "sister", "mom", "dad", "roommate", "cousin", "uncle"],
        deed: &["broke", "lost", "sold", "stole", "ruined", "wrecked", "hid"],
        thing: &["laptop", "bike", "camera", "couch", "phone", "guitar", "boat"],
        ask: &["get even", "let it go", "say something", "buy a new one", "leave", "wait"],
    },
    Topic {
        subreddit: "personalfinance",
        who: &["husband", "wife", "mom", "dad", "brother", "sister", "uncle"],
        deed: &["lost", "stole", "took", "hid", "kept"],
        thing: &["savings", "wallet", "card", "check", "bonus", "car"],
        ask: &["get a loan", "call the bank", "get a lawyer", "let it go", "say something", "wait"],
    },
    Topic {
        subreddit: "jobs",
        who: &["boss", "coworker", "manager", "friend", "ex"],
        deed: &["lost", "stole", "took", "hid", "kept", "ruined"],
        thing: &["laptop", "report", "badge", "bonus", "phone", "check"],
        ask: &["quit", "tell HR", "get a lawyer", "say something", "leave", "let it go"],
    },
    Topic {
        subreddit: "pets",
        who: &["roommate", "neighbor", "friend", "sister", "cousin", "landlord", "ex"],
        deed: &["lost", "sold", "stole", "hid", "kept", "scared", "shaved"],
        thing: &["cat", "dog", "parrot", "rabbit", "puppy"],
        ask: &["call the cops", "put up signs", "move out", "say something", "wait", "get even"],
    },
    Topic {
        subreddit: "legaladvice",
        who: &["landlord", "neighbor", "cousin", "uncle", "ex", "roommate", "boss"],
        deed: &["took", "wrecked", "burned", "stole", "ruined", "sold"],
        thing: &["fence", "shed", "boat", "car", "bike", "mail"],
        ask: &["sue", "get a lawyer", "call the cops", "move out", "let it go", "get even"],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_topic_is_in_the_list_of_its_slot() {
        for topic in TOPICS {
            for slot in Slot::ALL {
                for value in topic.values(slot) {
                    assert!(slot.values().contains(value), "{}: {value}", topic.subreddit);
                }
            }
        }
    }

    #[test]
    fn no_two_values_of_the_world_are_equal() {
        let all: Vec<&str> = Slot::ALL.iter().flat_map(|slot| slot.values().iter().copied()).collect();
        let distinct: std::collections::BTreeSet<&str> = all.iter().copied().collect();
        assert_eq!(all.len(), distinct.len());
    }

    #[test]
    fn slots_stand_at_their_index() {
        assert!(Slot::ALL.iter().enumerate().all(|(i, slot)| slot.index() == i));
    }
}
