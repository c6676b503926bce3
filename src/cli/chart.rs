//! Curves as text: two by four dots a character, in Unicode's Braille patterns.

/// Dots a character, across and down.
const DOTS: (usize, usize) = (2, 4);
/// The bit of each dot of a Braille pattern, row by row.
const BITS: [[u8; 2]; 4] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
const BRAILLE: u32 = 0x2800;
/// Characters of a chart's plot.
const WIDTH: usize = 60;
const HEIGHT: usize = 6;
/// Eighths of a character's height.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A chart of `points` (x, y) under its `title`: a line each, with the least and the largest y on
/// its left, and those of x below. None of fewer than two points, or of values that are no
/// numbers.
pub(super) fn chart(title: &str, points: &[(f64, f64)]) -> Option<Vec<String>> {
    if points.len() < 2 {
        return None;
    }
    let (left, right) = range(points.iter().map(|point| point.0))?;
    let (low, high) = range(points.iter().map(|point| point.1))?;
    let mut plot = Plot::default();
    let (columns, rows) = (WIDTH * DOTS.0, HEIGHT * DOTS.1);
    let place = |(x, y): (f64, f64)| {
        (
            scaled(x, (left, right), columns),
            // Rows are counted from above.
            rows - 1 - scaled(y, (low, high), rows),
        )
    };
    for two in points.windows(2) {
        plot.line(place(two[0]), place(two[1]));
    }
    let labels = [number(high), number(low)];
    let margin = labels.iter().map(String::len).max().unwrap_or(0);
    let mut lines = vec![title.to_owned()];
    for (index, row) in plot.0.iter().enumerate() {
        let label = match index {
            0 => labels[0].as_str(),
            _ if index + 1 == HEIGHT => &labels[1],
            _ => "",
        };
        let dots: String = row
            .iter()
            .filter_map(|&bits| char::from_u32(BRAILLE + u32::from(bits)))
            .collect();
        lines.push(format!("{label:>margin$} ┤{dots}"));
    }
    let (left, right) = (number(left), number(right));
    lines.push(format!(
        "{:margin$}  {left}{right:>1$}",
        "",
        WIDTH - left.len()
    ));
    Some(lines)
}

/// `numbers` as bars a character wide, on the scale from `low` to `high`; at most as many as a
/// chart is wide, evenly chosen, the last among them.
pub(super) fn sparkline(numbers: &[f64], (low, high): (f64, f64)) -> String {
    let shown = numbers.len().min(WIDTH);
    let chosen = (1..=shown).map(|place| numbers[place * numbers.len() / shown - 1]);
    chosen
        .map(|number| BARS[scaled(number, (low, high), BARS.len())])
        .collect()
}

/// The least and the largest of `numbers`, if all of them are numbers.
pub(super) fn range(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut range: Option<(f64, f64)> = None;
    for number in numbers {
        if !number.is_finite() {
            return None;
        }
        let (low, high) = range.unwrap_or((number, number));
        range = Some((low.min(number), high.max(number)));
    }
    range
}

/// Which of `count` equal parts of the range `number` is in.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a small count"
)]
fn scaled(number: f64, (low, high): (f64, f64), count: usize) -> usize {
    let share = if high > low {
        ((number - low) / (high - low)).clamp(0.0, 1.0)
    } else {
        0.5
    };
    (share * (count - 1) as f64).round() as usize
}

/// A number as a label: whole ones without a point.
fn number(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e9 {
        return format!("{number:.0}");
    }
    format!("{number:.4}")
}

/// A field of Braille patterns.
struct Plot([[u8; WIDTH]; HEIGHT]);

impl Default for Plot {
    fn default() -> Self {
        Self([[0; WIDTH]; HEIGHT])
    }
}

impl Plot {
    /// All dots between two, both among them.
    fn line(&mut self, from: (usize, usize), to: (usize, usize)) {
        let steps = from.0.abs_diff(to.0).max(from.1.abs_diff(to.1)).max(1);
        let between = |from: usize, to: usize, step: usize| {
            // Rounded: from + (to - from) · step / steps.
            (from * (steps - step) + to * step + steps / 2) / steps
        };
        for step in 0..=steps {
            let (x, y) = (between(from.0, to.0, step), between(from.1, to.1, step));
            self.0[y / DOTS.1][x / DOTS.0] |= BITS[y % DOTS.1][x % DOTS.0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HEIGHT, WIDTH, chart, sparkline};

    #[test]
    fn a_line_from_corner_to_corner() {
        let lines = chart("loss", &[(0.0, 0.0), (119.0, 23.0)]).expect("a chart");
        assert_eq!(lines.len(), HEIGHT + 2);
        assert_eq!(lines[0], "loss");
        assert!(
            lines[1].starts_with("23 ┤") && lines[1].ends_with('⠉'),
            "{}",
            lines[1]
        );
        assert!(lines[HEIGHT].starts_with(" 0 ┤⣀"), "{}", lines[HEIGHT]);
        assert!(lines[HEIGHT + 1].ends_with("119"), "{}", lines[HEIGHT + 1]);
        let widths = lines[1..=HEIGHT].iter().map(|line| line.chars().count());
        assert!(widths.into_iter().all(|width| width == WIDTH + 4));
        // Each column has dots: the line has no gaps.
        let filled = (4..WIDTH + 4).all(|column| {
            let mut rows = lines[1..=HEIGHT].iter();
            rows.any(|line| line.chars().nth(column) != Some('\u{2800}'))
        });
        assert!(filled);
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        assert_eq!(chart("one", &[(0.0, 1.0)]), None);
        assert_eq!(chart("none", &[(0.0, f64::NAN), (1.0, 1.0)]), None);
        let level = chart("level", &[(0.0, 1.0), (1.0, 1.0)]).expect("a chart");
        assert!(
            level[4].contains('⠉') || level[3].contains('⣀'),
            "{level:?}"
        );
    }

    #[test]
    fn bars_reach_from_the_lowest_to_the_highest() {
        assert_eq!(sparkline(&[0.0, 0.5, 1.0], (0.0, 1.0)), "▁▅█");
        let many: Vec<f64> = (0..1000).map(f64::from).collect();
        let bars = sparkline(&many, (0.0, 999.0));
        assert_eq!(bars.chars().count(), WIDTH);
        assert!(bars.ends_with('█'));
    }
}
