//! What is chosen: a width for each site.
//!
//! ```text
//! site      0 q_proj          1 k_proj        2 gate_proj
//! choices   f16   int4  trit  f16  int8 trit  f16  trit     as the caller lists them, each with its bytes
//! map       1                 2               1             the number of a choice in the list of its site
//! bytes     base + int4 of 0 + trit of 1 + trit of 2
//! ladder    trit int4 f16     …                             the choices by ascending bytes: "one rung down" is the next cheaper one
//! ```
//! A site is one tensor, or some that always change together. What no site covers (norms, tokenizer, headers) is `base`.

use std::fmt;
use std::str::FromStr;

use onebit_model::config::LinearMode;

use super::error::SetupError;

/// How a site's weights are stored.
pub type Width = LinearMode;

/// The most choices that a site can have: a map is written as one digit a site.
pub const MOST_CHOICES: usize = 10;

/// A width that a site may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The width.
    pub width: Width,
    /// Bytes of the site's tensors in the file, padding included.
    pub bytes: u64,
}

/// A tensor and the widths that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name, as messages have it.
    pub name: String,
    /// What it may be, in any order; no width twice.
    pub choices: Vec<Choice>,
}

/// A width for each site, by the number of the choice; ordered like the numbers, site 0 first. Written as one digit a site.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Candidate(Box<[u8]>);

impl Candidate {
    /// Of the number of a choice for each site.
    pub fn new(choices: impl Into<Box<[u8]>>) -> Self {
        Candidate(choices.into())
    }

    /// The number of the choice of each site.
    pub fn choices(&self) -> &[u8] {
        &self.0
    }

    /// The same map with another choice of one site.
    ///
    /// # Panics
    /// If there is no such site.
    pub fn with(&self, site: usize, choice: u8) -> Self {
        let mut choices = self.0.clone();
        choices[site] = choice;
        Candidate(choices)
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|choice| write!(f, "{choice}"))
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Candidate({self})")
    }
}

impl FromStr for Candidate {
    type Err = String;

    fn from_str(digits: &str) -> Result<Self, String> {
        let digit = |c: char| c.to_digit(10).map(|digit| digit as u8);
        let choices: Option<Vec<u8>> = digits.chars().map(digit).collect();
        choices
            .map(Candidate::new)
            .ok_or_else(|| format!("expected a digit for each site, found {digits:?}"))
    }
}

/// The sites of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sites {
    sites: Vec<Site>,
    /// For each site its choices by ascending bytes, of equals the first listed one first.
    ladders: Vec<Vec<u8>>,
    base: u64,
}

impl Sites {
    /// Of `sites` and of the bytes that are there whatever the widths are.
    ///
    /// # Errors
    /// If a site has no choice, more than [`MOST_CHOICES`], or a width twice, or if the largest map passes 2⁶⁴ bytes.
    pub fn new(sites: Vec<Site>, base: u64) -> Result<Self, SetupError> {
        let mut most = base;
        let mut ladders = Vec::with_capacity(sites.len());
        for site in &sites {
            let n = site.choices.len();
            if n == 0 || n > MOST_CHOICES {
                return Err(SetupError::Choices {
                    site: site.name.clone(),
                    count: n,
                });
            }
            for (i, choice) in site.choices.iter().enumerate() {
                if site.choices[..i].iter().any(|other| other.width == choice.width) {
                    return Err(SetupError::WidthTwice {
                        site: site.name.clone(),
                        width: choice.width.name(),
                    });
                }
            }
            let mut ladder: Vec<u8> = (0..n as u8).collect();
            ladder.sort_by_key(|&choice| site.choices[usize::from(choice)].bytes);
            most = ladder
                .last()
                .and_then(|&choice| most.checked_add(site.choices[usize::from(choice)].bytes))
                .ok_or(SetupError::TooLarge)?;
            ladders.push(ladder);
        }
        Ok(Sites { sites, ladders, base })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// All of them.
    pub fn all(&self) -> &[Site] {
        &self.sites
    }

    /// Bytes that are there whatever the widths are.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Choices of a site by ascending bytes.
    pub fn ladder(&self, site: usize) -> &[u8] {
        &self.ladders[site]
    }

    /// The width that a map gives to a site.
    pub fn width(&self, map: &Candidate, site: usize) -> Width {
        self.sites[site].choices[usize::from(map.0[site])].width
    }

    /// Bytes of a map as a sum: `base` and each site's. The file's exact length is [`Evaluator::bytes`](super::Evaluator::bytes).
    pub fn sum(&self, map: &Candidate) -> u64 {
        let of = |(site, &choice): (&Site, &u8)| site.choices[usize::from(choice)].bytes;
        self.base + self.sites.iter().zip(&map.0).map(of).sum::<u64>()
    }

    /// Whether a map has a choice for each site, and one that is there.
    pub fn has(&self, map: &Candidate) -> bool {
        map.0.len() == self.len()
            && (self.sites.iter().zip(&map.0)).all(|(site, &choice)| usize::from(choice) < site.choices.len())
    }

    /// Every site at the bottom of its ladder.
    pub fn lowest(&self) -> Candidate {
        Candidate(self.ladders.iter().map(|ladder| ladder[0]).collect())
    }

    /// Every site at the top of its ladder.
    pub fn highest(&self) -> Candidate {
        Candidate(self.ladders.iter().map(|ladder| ladder[ladder.len() - 1]).collect())
    }

    /// Every site as near to `width` as its choices allow: that width, or the next by [`Width::ALL`], the wider of two alike.
    pub fn uniform(&self, width: Width) -> Candidate {
        let place = |width: Width| Width::ALL.iter().position(|&other| other == width).unwrap_or(0);
        let wanted = place(width);
        let of = |site: &Site| {
            let distance = |&i: &u8| {
                let place = place(site.choices[usize::from(i)].width);
                (place.abs_diff(wanted), place)
            };
            (0..site.choices.len() as u8).min_by_key(distance).unwrap_or(0)
        };
        Candidate(self.sites.iter().map(of).collect())
    }

    /// The place of a map's choice in the ladder of its site.
    pub(super) fn rung(&self, map: &Candidate, site: usize) -> usize {
        let choice = map.0[site];
        self.ladders[site]
            .iter()
            .position(|&other| other == choice)
            .unwrap_or(0)
    }
}

/// How much the loss rises (nats a token) if one site alone gets a width: `[site][choice]`, in the order of [`Site::choices`].
///
/// A rise may be negative (a width that does good) or `+∞` (a width that never comes into question).
#[derive(Clone, Debug, PartialEq)]
pub struct Sensitivity(Vec<Vec<f64>>);

impl Sensitivity {
    /// Of a table for `sites`.
    ///
    /// # Errors
    /// If the table has not a number for each choice of each site, or one that is NaN or `−∞`.
    pub fn new(table: Vec<Vec<f64>>, sites: &Sites) -> Result<Self, SetupError> {
        if table.len() != sites.len() {
            return Err(SetupError::Rows {
                sites: sites.len(),
                found: table.len(),
            });
        }
        for (row, site) in table.iter().zip(sites.all()) {
            if row.len() != site.choices.len() {
                return Err(SetupError::Row {
                    site: site.name.clone(),
                    choices: site.choices.len(),
                    found: row.len(),
                });
            }
            if let Some(&rise) = row.iter().find(|rise| rise.is_nan() || **rise == f64::NEG_INFINITY) {
                return Err(SetupError::Rise {
                    site: site.name.clone(),
                    rise,
                });
            }
        }
        Ok(Sensitivity(table))
    }

    /// The rise of one choice.
    pub fn rise(&self, site: usize, choice: u8) -> f64 {
        self.0[site][usize::from(choice)]
    }

    /// The rise of a map as a sum over its sites, in their order: what [`knapsack`](super::knapsack) minimises.
    pub fn sum(&self, map: &Candidate) -> f64 {
        let of = |(row, &choice): (&Vec<f64>, &u8)| row[usize::from(choice)];
        self.0.iter().zip(map.choices()).map(of).sum()
    }
}
