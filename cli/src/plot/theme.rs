//! Light and dark: pictures are drawn in the light colours, each of which has a dark twin.
//!
//! A picture for both holds the twins as a style sheet, which a browser applies where the reader prefers dark; other viewers show the light one.

use std::str::FromStr;

use plotters::prelude::RGBColor;

/// What a picture is to be read on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Theme {
    /// As its reader prefers.
    #[default]
    Auto,
    /// White.
    Light,
    /// Nearly black.
    Dark,
}

impl FromStr for Theme {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Theme::Auto),
            "light" => Ok(Theme::Light),
            "dark" => Ok(Theme::Dark),
            _ => Err(format!("expected auto, light or dark, found {text:?}")),
        }
    }
}

/// Runs in turn; distinguishable with the usual colour-vision deficiencies (Okabe & Ito 2008).
pub(super) const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];
const DARK_COLORS: [RGBColor; 7] = [
    RGBColor(64, 160, 240),
    RGBColor(255, 138, 61),
    RGBColor(47, 208, 160),
    RGBColor(231, 155, 199),
    RGBColor(245, 190, 75),
    RGBColor(154, 220, 255),
    RGBColor(168, 168, 168),
];

pub(super) const PAPER: RGBColor = RGBColor(255, 255, 255);
pub(super) const GRID: RGBColor = RGBColor(225, 225, 225);
pub(super) const INK: RGBColor = RGBColor(60, 60, 60);
/// Behind full precision, annealing and the hard phase.
pub(super) const SHADES: [RGBColor; 3] = [
    RGBColor(245, 245, 245),
    RGBColor(253, 243, 224),
    RGBColor(226, 240, 247),
];

/// Light and dark of what is not a curve.
const PAIRS: [(RGBColor, RGBColor); 6] = [
    (PAPER, RGBColor(21, 24, 29)),
    (GRID, RGBColor(51, 56, 63)),
    (INK, RGBColor(201, 206, 214)),
    (SHADES[0], RGBColor(28, 32, 38)),
    (SHADES[1], RGBColor(45, 38, 22)),
    (SHADES[2], RGBColor(18, 40, 52)),
];

/// Shades of a depth.
const DEPTHS: u8 = 16;

/// Between two colours, each channel by itself.
fn between(depth: f64, from: (u8, u8, u8), to: (u8, u8, u8)) -> RGBColor {
    let mix = |from: u8, to: u8| (f64::from(from) + depth * (f64::from(to) - f64::from(from))).round() as u8;
    RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
}

/// From dark blue at depth 0 to light orange at 1: of different lightness, so that it can be told apart in grey.
fn light_depth(depth: f64) -> RGBColor {
    between(depth, (20, 45, 110), (245, 175, 80))
}

fn dark_depth(depth: f64) -> RGBColor {
    between(depth, (95, 130, 245), (255, 214, 140))
}

/// The colour of a depth from 0 to 1, one of [`DEPTHS`].
pub(super) fn depth_color(depth: f64) -> RGBColor {
    let last = f64::from(DEPTHS - 1);
    light_depth((depth.clamp(0.0, 1.0) * last).round() / last)
}

/// Every colour that pictures have, with its twin.
fn twins() -> impl Iterator<Item = (String, String)> {
    let depths = (0..DEPTHS).map(|i| f64::from(i) / f64::from(DEPTHS - 1));
    let pairs = PAIRS.into_iter().chain(COLORS.into_iter().zip(DARK_COLORS));
    let pairs = pairs.chain(depths.map(|depth| (light_depth(depth), dark_depth(depth))));
    pairs.map(|(light, dark)| (hex(light), hex(dark)))
}

/// As the pictures have it.
fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// A picture that was drawn in the light colours, for `theme`.
pub(super) fn themed(svg: String, theme: Theme) -> String {
    let used = || twins().filter(|(light, _)| svg.contains(light.as_str()));
    match theme {
        Theme::Light => svg,
        Theme::Auto => {
            let rules: String = used()
                .map(|(light, dark)| format!("[fill=\"{light}\"]{{fill:{dark}}}[stroke=\"{light}\"]{{stroke:{dark}}}"))
                .collect();
            let Some(at) = svg.find('>') else { return svg };
            let (head, body) = svg.split_at(at + 1);
            format!("{head}\n<style>@media (prefers-color-scheme:dark){{{rules}}}</style>{body}")
        }
        Theme::Dark => {
            // In one pass: a dark colour may be another's light one.
            let twins: Vec<_> = used().collect();
            let mut parts = svg.split('#');
            let mut out = parts.next().unwrap_or_default().to_string();
            for part in parts {
                let twin = twins.iter().find(|(light, _)| part.starts_with(&light[1..]));
                match twin {
                    Some((light, dark)) => {
                        out.push_str(dark);
                        out.push_str(&part[light.len() - 1..]);
                    }
                    None => {
                        out.push('#');
                        out.push_str(part);
                    }
                }
            }
            out
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// That a picture has no colour without a twin.
    pub(in crate::plot) fn assert_known(svg: &str) {
        let known: Vec<String> = twins().map(|(light, _)| light).collect();
        for attribute in ["fill=\"", "stroke=\""] {
            for part in svg.split(attribute).skip(1) {
                let color = part.split('"').next().unwrap();
                assert!(color == "none" || known.iter().any(|k| k == color), "{color}");
            }
        }
    }

    /// Luminance by WCAG 2, and the contrast of two.
    fn contrast(a: &str, b: &str) -> f64 {
        let luminance = |hex: &str| {
            let channel = |at: usize| {
                let c = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
                if c <= 0.03928 {
                    c / 12.92
                } else {
                    ((c + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn no_two_light_colours_are_the_same_and_curves_are_seen_on_both() {
        let all: Vec<(String, String)> = twins().collect();
        for (i, (light, _)) in all.iter().enumerate() {
            assert!(all[..i].iter().all(|(other, _)| other != light), "{light}");
        }
        let [paper, ink] = [0, 2].map(|i| PAIRS[i]);
        let text = contrast(&hex(paper.1), &hex(ink.1));
        assert!(text > 7.0 && contrast(&hex(paper.0), &hex(ink.0)) > 7.0, "{text}");
        for (light, dark) in &all[PAIRS.len()..] {
            assert!(contrast(light, &hex(paper.0)) > 1.8, "{light}");
            assert!(contrast(dark, &hex(paper.1)) > 3.0, "{dark}");
        }
    }

    #[test]
    fn a_theme_changes_colours_alone() {
        let svg =
            "<svg a=\"b\">\n<text fill=\"#3C3C3C\">#3C3 &amp; #</text><path stroke=\"#0072B2\"/></svg>".to_string();
        assert_eq!(themed(svg.clone(), Theme::Light), svg);
        assert_eq!(
            themed(svg.clone(), Theme::Dark),
            svg.replace("#3C3C3C", "#C9CED6").replace("#0072B2", "#40A0F0")
        );
        let both = themed(svg.clone(), Theme::Auto);
        assert!(both.contains("[stroke=\"#0072B2\"]{stroke:#40A0F0}"), "{both}");
        assert!(!both.contains("#D55E00"), "it is not used: {both}");
        let without = both.split("\n<style>").next().unwrap().to_string() + both.split("</style>").nth(1).unwrap();
        assert_eq!(without, svg);
    }
}
