//! `--cuda-devices`: the cards of this machine that run the frozen half, or train.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// Numbers of cards, each once. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct CardList(Vec<u16>);

impl CardList {
    fn new(cards: Vec<u16>) -> Result<Self, String> {
        let mut rest = cards.as_slice();
        while let [card, others @ ..] = rest {
            if others.contains(card) {
                return Err(format!("card {card} is there twice"));
            }
            rest = others;
        }
        if cards.is_empty() {
            return Err("the list is empty".into());
        }
        Ok(Self(cards))
    }

    /// Each of them, as they were given.
    pub(super) fn cards(&self) -> &[u16] {
        &self.0
    }
}

impl FromStr for CardList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let cards = text.split(',').map(|card| {
            let card = card.trim();
            let number = card.parse();
            number.map_err(|_| format!("`{card}` is not the number of a card, as in 0,1"))
        });
        Self::new(cards.collect::<Result<_, _>>()?)
    }
}

impl<'de> Deserialize<'de> for CardList {
    /// One number, a list of them, or a text as on the command line.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            One(u16),
            Several(Vec<u16>),
            Text(String),
        }
        let cards = match Written::deserialize(deserializer)? {
            Written::One(card) => Ok(Self(vec![card])),
            Written::Several(cards) => Self::new(cards),
            Written::Text(text) => text.parse(),
        };
        cards.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Recipe {
        cuda_devices: CardList,
    }

    #[test]
    fn lists_are_read_from_flags_and_recipes() {
        let expected = CardList(vec![2, 0]);
        assert_eq!("2, 0".parse(), Ok(expected.clone()));
        for text in ["[2, 0]", "\"2,0\""] {
            let recipe: Recipe = toml::from_str(&format!("cuda_devices = {text}")).expect("read");
            assert_eq!(recipe.cuda_devices, expected);
        }
        let one: Recipe = toml::from_str("cuda_devices = 1").expect("read");
        assert_eq!(one.cuda_devices.cards(), [1]);
    }

    #[test]
    fn what_is_no_list_of_cards_is_refused() {
        for text in ["", "0,0", "one", "-1", "0,,1"] {
            assert!(text.parse::<CardList>().is_err(), "{text:?}");
        }
        assert!(toml::from_str::<CardList>("[]").is_err());
    }
}
