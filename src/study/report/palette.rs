//! Colours, in the light and in the dark, and the style of plots.
//!
//! The hues of the series are those that colour-blind readers can tell apart (Okabe and Ito 2008,
//! "Color Universal Design"), some of them darker or lighter for contrast.

/// A colour's name in the style, in the light, and in the dark.
const COLOURS: [(&str, &str, &str); 13] = [
    ("paper", "#ffffff", "#14171b"),
    ("panel", "#f4f5f7", "#1d2127"),
    ("ink", "#1a1d21", "#e6e8eb"),
    ("muted", "#5a616b", "#a3abb6"),
    ("grid", "#dfe2e6", "#343a43"),
    ("warning", "#9a4a00", "#f0a860"),
    ("series-0", "#0072b2", "#56b4e9"),
    ("series-1", "#d55e00", "#f0883e"),
    ("series-2", "#00805d", "#2cc295"),
    ("series-3", "#aa4a80", "#dd92bd"),
    ("series-4", "#8a6d00", "#f0e442"),
    ("series-5", "#2e8bb8", "#8fb8ff"),
    ("series-6", "#444444", "#d0d0d0"),
];

/// Different colours of series; more begin again with the first.
pub(super) const SERIES: usize = 7;

/// How plots look.
const PLOT_STYLE: &str = include_str!("plot.css");
/// How the page looks.
const PAGE_STYLE: &str = include_str!("page.css");

/// The style of the page: light, and dark where the reader's screen is; light on paper.
pub(super) fn page_style() -> String {
    let variables =
        |pick: fn(&(&str, &str, &str)) -> String| -> String { COLOURS.iter().map(pick).collect() };
    let light = variables(|(name, light, _)| format!("--{name}:{light};"));
    let dark = variables(|(name, _, dark)| format!("--{name}:{dark};"));
    format!(
        ":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{PAGE_STYLE}{PLOT_STYLE}"
    )
}

/// A plot's `svg` as a file of its own, which knows no page: in the light, on white.
pub(super) fn standalone(svg: &str) -> String {
    let style = COLOURS
        .iter()
        .fold(PLOT_STYLE.to_owned(), |style, (name, light, _)| {
            style.replace(&format!("var(--{name})"), light)
        });
    let namespace = "<svg xmlns=\"http://www.w3.org/2000/svg\"";
    let svg = svg.replacen("<svg", namespace, 1);
    let background = "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>";
    let svg = match svg.find('>') {
        Some(end) => {
            let (head, rest) = svg.split_at(end + 1);
            format!("{head}\n<style>{style}</style>\n{background}{rest}")
        }
        None => svg,
    };
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{svg}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_that_is_used_is_there() {
        for style in [PLOT_STYLE, PAGE_STYLE] {
            for used in style.split("var(--").skip(1) {
                let name = used.split(')').next().unwrap_or_default();
                assert!(COLOURS.iter().any(|colour| colour.0 == name), "{name}");
            }
        }
        assert!(!standalone("<svg class=\"plot\"></svg>").contains("var("));
    }

    /// Texts at 4.5 to 1 and what is drawn at 3 to 1: WCAG 2.2, criteria 1.4.3 and 1.4.11.
    #[test]
    fn everything_stands_out_from_the_paper() {
        let luminance = |colour: &str| {
            let channel = |start: usize| {
                let value = u8::from_str_radix(&colour[start..start + 2], 16).expect("a colour");
                let value = f64::from(value) / 255.0;
                if value <= 0.040_45 {
                    value / 12.92
                } else {
                    ((value + 0.055) / 1.055).powf(2.4)
                }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let contrast = |one: &str, other: &str| {
            let (one, other) = (luminance(one), luminance(other));
            (one.max(other) + 0.05) / (one.min(other) + 0.05)
        };
        let (_, light_paper, dark_paper) = COLOURS[0];
        for (name, light, dark) in COLOURS {
            let least = match name {
                "paper" | "panel" | "grid" => continue,
                "ink" | "muted" | "warning" => 4.5,
                _ => 3.0,
            };
            assert!(contrast(light, light_paper) >= least, "{name} {light}");
            assert!(contrast(dark, dark_paper) >= least, "{name} {dark}");
        }
    }
}
