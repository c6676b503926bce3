//! Numbers from -1 to 1 as a field of colours, each written out.

use std::fmt::Write;

use super::html::escape;
use super::svg::{open, text_width};

const WIDTH: f64 = 400.0;
const CELL_HEIGHT: f64 = 22.0;
const TOP: f64 = 44.0;
/// How strong the colour of 1 is; a number on it is still read easily.
const STRONGEST: f64 = 0.55;

/// A field of numbers.
pub(super) struct HeatMap<'a> {
    /// Over it.
    pub title: &'a str,
    /// What its rows are.
    pub rows: Vec<String>,
    /// What its columns are.
    pub columns: Vec<&'a str>,
    /// A row each; none where a number is not defined.
    pub cells: Vec<Vec<Option<f64>>>,
}

/// `map` as an SVG element.
pub(super) fn draw(map: &HeatMap) -> String {
    let widest = map.rows.iter().map(|row| text_width(row));
    let left = widest.fold(0.0, f64::max) + 8.0;
    let width = (WIDTH - left) / map.columns.len().max(1) as f64;
    let height = TOP + CELL_HEIGHT * map.rows.len() as f64 + 4.0;
    let mut svg = open(map.title, height);
    for (column, name) in map.columns.iter().enumerate() {
        let _ = writeln!(
            svg,
            "<text class=\"axis middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left + width * (column as f64 + 0.5),
            TOP - 7.0,
            escape(name)
        );
    }
    for (row, (name, cells)) in map.rows.iter().zip(&map.cells).enumerate() {
        let top = TOP + CELL_HEIGHT * row as f64;
        let base = top + CELL_HEIGHT / 2.0 + 3.8;
        let _ = writeln!(
            svg,
            "<text class=\"axis end\" x=\"{:.1}\" y=\"{base:.1}\">{}</text>",
            left - 6.0,
            escape(name)
        );
        for (column, cell) in cells.iter().enumerate() {
            let cell = cell.filter(|number| number.is_finite());
            let start = left + width * column as f64;
            let text = cell.map_or("-".into(), |number| format!("{number:.4}"));
            let number = cell.unwrap_or(0.0);
            let class = if number < 0.0 { "negative" } else { "positive" };
            let what = map.columns.get(column).copied().unwrap_or_default();
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill-opacity=\"{:.3}\"><title>{}</title></rect><text class=\"middle\" x=\"{:.1}\" y=\"{base:.1}\">{text}</text>",
                start + 1.0,
                top + 1.0,
                width - 2.0,
                CELL_HEIGHT - 2.0,
                number.abs().min(1.0) * STRONGEST,
                escape(&format!("{name}, {what}: {text}")),
                start + width / 2.0
            );
        }
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_numbers() {
        let map = HeatMap {
            title: "t",
            rows: vec!["<0>".into(), "1".into()],
            columns: vec!["a", "b"],
            cells: vec![vec![Some(1.0), Some(-0.5)], vec![None, Some(f64::NAN)]],
        };
        let svg = draw(&map);
        assert!(svg.contains("&lt;0&gt;, a: 1.0000"), "{svg}");
        assert!(svg.contains("class=\"negative\""), "{svg}");
        assert!(svg.contains("fill-opacity=\"0.275\""), "{svg}");
        assert_eq!(svg.matches(">-</text>").count(), 2, "{svg}");
    }
}
