//! A plot as SVG.

use std::fmt::Write;

use super::html::{escape, shortened};
use super::palette::SERIES;
use super::plot::{Axis, LARGEST, Marks, Plot, Point, Series, thinned};
use super::scale::{Scale, Wanted};

/// Units of the drawing, which a phone shows about as wide as it is.
const WIDTH: f64 = 400.0;
/// Of the field that points lie in.
const FIELD_HEIGHT: f64 = 170.0;
const RIGHT: f64 = 12.0;
const TITLE_BASE: f64 = 15.0;
/// From one line of text to the next.
const LINE: f64 = 17.0;
/// About how wide a character is at the size of labels; fonts differ.
const CHARACTER: f64 = 7.0;
/// Points of a curve; more could not be told apart.
const MOST_POINTS: usize = 600;
/// Curves with more points have marks at some of them.
const MOST_MARKS: usize = 40;
const SPARSE_MARKS: usize = 10;
const MARK: f64 = 3.6;

/// How wide `text` is drawn, about.
pub(super) fn text_width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// `plot` as an SVG element.
pub(super) fn draw(plot: &Plot) -> String {
    let y = vertical(plot);
    let widest = y.marks.iter().map(|(_, text)| text_width(text));
    let left = widest.fold(12.0, f64::max) + 9.0;
    let right = WIDTH - RIGHT;
    let x = horizontal(plot, right - left);
    let legend = legend(&plot.series);
    let top = TITLE_BASE + LINE + legend.height + 12.0;
    let bottom = top + FIELD_HEIGHT;
    let height = bottom + 36.0;
    let mut svg = open(&plot.title, height);
    let _ = writeln!(
        svg,
        "<text class=\"axis\" x=\"0\" y=\"{:.1}\">{}</text>",
        TITLE_BASE + LINE,
        escape(&shortened(&plot.y.label, 55))
    );
    svg.push_str(&legend.svg);
    for (number, text) in &y.marks {
        let place = y.place(*number, bottom, top);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{left:.1} {place:.1}H{right:.1}\"/><text class=\"axis end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            left - 5.0,
            place + 3.8,
            escape(text)
        );
    }
    for (number, text) in &x.marks {
        let place = x.place(*number, left, right);
        let half = text_width(text) / 2.0;
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{place:.1} {bottom:.1}v4\"/><text class=\"axis middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            place.clamp(half, WIDTH - half),
            bottom + 15.0,
            escape(text)
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"axis middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        f64::midpoint(left, right),
        bottom + 31.0,
        escape(&shortened(&plot.x.label, 52))
    );
    let field = Field {
        x,
        y,
        left,
        right,
        top,
        bottom,
    };
    let mut taken = Vec::new();
    for (index, series) in plot.series.iter().enumerate() {
        field.draw(&mut svg, index, series, &mut taken);
    }
    for series in &plot.series {
        field.label(&mut svg, series, &mut taken);
    }
    svg.push_str("</svg>");
    svg
}

/// The start of an SVG element, with its title.
pub(super) fn open(title: &str, height: f64) -> String {
    let title = escape(&shortened(title, 46));
    format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">\n<text class=\"title\" x=\"0\" y=\"{TITLE_BASE}\">{title}</text>\n"
    )
}

fn vertical(plot: &Plot) -> Scale {
    let points = plot.series.iter().flat_map(Series::finite);
    let numbers = points.flat_map(|point| {
        let [low, high] = point.interval.unwrap_or([point.y; 2]);
        [point.y, low, high]
    });
    scale(&plot.y, numbers, 5, 0)
}

fn horizontal(plot: &Plot, width: f64) -> Scale {
    let points = plot.series.iter().flat_map(Series::finite);
    let fit = match &plot.x.marks {
        Marks::Named(names) => {
            let widest = names.iter().map(|(_, name)| text_width(name) + 8.0);
            let fit = (width / widest.fold(14.0, f64::max)).floor();
            (1..=names.len()).rev().find(|&count| count as f64 <= fit)
        }
        _ => None,
    };
    scale(&plot.x, points.map(|point| point.x), 6, fit.unwrap_or(1))
}

fn scale(axis: &Axis, numbers: impl Iterator<Item = f64>, marks: u32, fit: usize) -> Scale {
    if let Marks::Named(names) = &axis.marks
        && !names.is_empty()
    {
        return Scale::named(names, fit);
    }
    let numbers = numbers.filter(|number| number.abs() < LARGEST);
    let range = numbers.fold(None, |range: Option<(f64, f64)>, number| {
        let (low, high) = range.unwrap_or((number, number));
        Some((low.min(number), high.max(number)))
    });
    let (low, high) = range.unwrap_or((0.0, 1.0));
    Scale::new(Wanted {
        low,
        high,
        marks,
        from_zero: axis.marks == Marks::FromZero,
        whole: axis.marks == Marks::Whole,
    })
}

/// What each series is, above the field.
struct Legend {
    svg: String,
    height: f64,
}

/// None of a single series: the title says what it is.
fn legend(series: &[Series]) -> Legend {
    let mut legend = Legend {
        svg: String::new(),
        height: 0.0,
    };
    if series.len() < 2 {
        return legend;
    }
    let (mut x, mut y) = (0.0, TITLE_BASE + 2.0 * LINE);
    for (index, series) in series.iter().enumerate() {
        let name = shortened(&series.name, 50);
        let width = 30.0 + text_width(&name);
        if x > 0.0 && x + width > WIDTH {
            (x, y) = (0.0, y + LINE);
        }
        let curve = if series.line {
            format!("<path class=\"curve\" d=\"M{x:.1} {:.1}h16\"/>", y - 3.8)
        } else {
            String::new()
        };
        let _ = writeln!(
            legend.svg,
            "<g class=\"{}\">{curve}{}</g><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            class(index),
            mark(index, x + 8.0, y - 3.8, None),
            x + 20.0,
            escape(&name)
        );
        x += width + 6.0;
    }
    legend.height = y - TITLE_BASE - LINE;
    legend
}

/// The class of a series: its colour, and whether it was another's before.
fn class(series: usize) -> String {
    let again = if series / SERIES % 2 == 1 {
        " again"
    } else {
        ""
    };
    format!("series-{}{again}", series % SERIES)
}

/// The mark of a series at a place; shapes differ where colours cannot be told apart.
fn mark(series: usize, x: f64, y: f64, title: Option<&str>) -> String {
    let size = MARK;
    let (shape, filled) = match series % SERIES {
        0 => (
            format!(
                "M{:.1} {y:.1}a{size} {size} 0 1 0 {} 0a{size} {size} 0 1 0 {} 0z",
                x - size,
                2.0 * size,
                -2.0 * size
            ),
            true,
        ),
        1 => (
            format!(
                "M{:.1} {:.1}h{2}v{2}h-{2}z",
                x - size * 0.9,
                y - size * 0.9,
                size * 1.8
            ),
            true,
        ),
        2 => (
            format!(
                "M{x:.1} {:.1}l{} {}h{}z",
                y - size * 1.2,
                size * 1.15,
                size * 2.1,
                -size * 2.3
            ),
            true,
        ),
        3 => (
            format!(
                "M{x:.1} {:.1}l{1} {1}l-{1} {1}l-{1} -{1}z",
                y - size * 1.3,
                size * 1.3
            ),
            true,
        ),
        4 => (
            format!(
                "M{x:.1} {:.1}l{} {}h{}z",
                y + size * 1.2,
                size * 1.15,
                -size * 2.1,
                -size * 2.3
            ),
            true,
        ),
        5 => (
            format!(
                "M{:.1} {y:.1}h{2}M{x:.1} {:.1}v{2}",
                x - size * 1.2,
                y - size * 1.2,
                size * 2.4
            ),
            false,
        ),
        _ => (
            format!(
                "M{:.1} {:.1}l{2} {2}m0 -{2}l-{2} {2}",
                x - size,
                y - size,
                size * 2.0
            ),
            false,
        ),
    };
    let class = if filled { "mark solid" } else { "mark" };
    match title {
        Some(title) => format!(
            "<path class=\"{class}\" d=\"{shape}\"><title>{}</title></path>",
            escape(title)
        ),
        None => format!("<path class=\"{class}\" d=\"{shape}\"/>"),
    }
}

/// The field that points lie in.
struct Field {
    x: Scale,
    y: Scale,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

/// Something drawn: left, top, right, bottom.
type Taken = [f64; 4];

impl Field {
    fn place(&self, point: &Point) -> (f64, f64) {
        (
            self.x.place(point.x, self.left, self.right),
            self.height(point.y),
        )
    }

    /// Where up `number` is.
    fn height(&self, number: f64) -> f64 {
        self.y.place(number, self.bottom, self.top)
    }

    /// Draws `series`, the one at `index`.
    fn draw(&self, svg: &mut String, index: usize, series: &Series, taken: &mut Vec<Taken>) {
        let all: Vec<&Point> = series.finite().collect();
        let points = thinned(&all, MOST_POINTS);
        let many = points.len() > MOST_MARKS;
        let dense = if many { " dense" } else { "" };
        let _ = writeln!(svg, "<g class=\"{}{dense}\">", class(index));
        if series.line && points.len() > 1 {
            let mut path = String::new();
            for (place, point) in points.iter().enumerate() {
                let (x, y) = self.place(point);
                let command = if place == 0 { 'M' } else { 'L' };
                let _ = write!(path, "{command}{x:.1} {y:.1}");
            }
            let _ = writeln!(svg, "<path class=\"curve\" d=\"{path}\"/>");
        }
        let every = if many {
            points.len().div_ceil(SPARSE_MARKS)
        } else {
            1
        };
        // The last point has a mark, whatever their number.
        let first = (points.len().max(1) - 1) % every;
        for point in points.iter().skip(first).step_by(every) {
            let (x, y) = self.place(point);
            if let Some([low, high]) = point.interval {
                let [low, high] = [low, high].map(|end| self.height(end));
                taken.push([x - 3.0, high, x + 3.0, low]);
                let _ = writeln!(
                    svg,
                    "<path class=\"interval\" d=\"M{x:.1} {low:.1}V{high:.1}M{:.1} {low:.1}h6M{:.1} {high:.1}h6\"/>",
                    x - 3.0,
                    x - 3.0
                );
            }
            if point.chosen {
                let _ = writeln!(
                    svg,
                    "<circle class=\"chosen\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{}\"/>",
                    MARK * 2.0
                );
            }
            let _ = writeln!(svg, "{}", mark(index, x, y, Some(&point.title)));
            let around = if point.chosen { MARK * 2.0 } else { MARK };
            taken.push([x - around, y - around, x + around, y + around]);
        }
        svg.push_str("</g>\n");
    }

    /// Writes what stands beside the points of `series`, where there is room.
    fn label(&self, svg: &mut String, series: &Series, taken: &mut Vec<Taken>) {
        for point in series.finite() {
            let Some(label) = &point.label else {
                continue;
            };
            let (x, y) = self.place(point);
            let (width, height) = (text_width(label), 13.0);
            let gap = if point.chosen { 10.0 } else { 6.0 };
            let [low, high] = point.interval.unwrap_or([point.y; 2]);
            let (above, below) = (self.height(high).min(y), self.height(low).max(y));
            let corners = [
                (x + gap, y - height / 2.0),
                (x - gap - width, y - height / 2.0),
                (x - width / 2.0, above - gap - height),
                (x - width / 2.0, below + gap),
            ];
            let free = corners.into_iter().find(|&(left, top)| {
                let [right, bottom] = [left + width, top + height];
                let inside = left >= self.left
                    && right <= WIDTH
                    && top >= self.top - 4.0
                    && bottom <= self.bottom;
                inside
                    && taken.iter().all(|other| {
                        right <= other[0]
                            || left >= other[2]
                            || bottom <= other[1]
                            || top >= other[3]
                    })
            });
            let Some((left, top)) = free else {
                continue;
            };
            taken.push([left, top, left + width, top + height]);
            let _ = writeln!(
                svg,
                "<text x=\"{left:.1}\" y=\"{:.1}\">{}</text>",
                top + 10.6,
                escape(label)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(series: Vec<Series>) -> Plot {
        Plot {
            name: "p".into(),
            title: "a < b".into(),
            caption: String::new(),
            x: Axis::new("x", Marks::Whole),
            y: Axis::new("y & z", Marks::Numbers),
            series,
        }
    }

    fn series(points: &[(f64, f64)]) -> Series {
        Series::curve("s", "x", "y", points)
    }

    /// Every number of a path or a place in `svg` is one.
    fn is_drawable(svg: &str) -> bool {
        !svg.contains("NaN") && !svg.contains("inf") && !svg.contains("--")
    }

    #[test]
    fn texts_are_escaped() {
        let svg = draw(&plot(vec![series(&[(0.0, 1.0), (1.0, 2.0)])]));
        assert!(svg.contains(">a &lt; b</text>"), "{svg}");
        assert!(svg.contains(">y &amp; z</text>"), "{svg}");
        assert!(is_drawable(&svg), "{svg}");
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let points = [
            (0.0, f64::NAN),
            (1.0, 2.0),
            (2.0, f64::INFINITY),
            (3.0, 2.0),
            (4.0, f64::MAX),
            (5.0, f64::MIN),
        ];
        let svg = draw(&plot(vec![series(&points)]));
        assert!(is_drawable(&svg), "{svg}");
        assert_eq!(svg.matches("<title>").count(), 2, "{svg}");
        assert!(is_drawable(&draw(&plot(vec![series(&[])]))));
        assert!(is_drawable(&draw(&plot(Vec::new()))));
    }

    #[test]
    fn the_ends_of_a_curve_are_in_the_corners() {
        let svg = draw(&plot(vec![series(&[(0.0, 0.0), (10.0, 1.0)])]));
        let path = svg.split("class=\"curve\" d=\"M").nth(1).expect("a curve");
        let path = path.split('"').next().expect("its end");
        let numbers: Vec<f64> = path
            .split(['L', ' '])
            .map(|number| number.parse().expect("a number"))
            .collect();
        let [x0, y0, x1, y1] = numbers[..] else {
            panic!("{path}")
        };
        assert!(x0 < 70.0 && x1 > 350.0, "{path}");
        assert!(y0 - y1 > FIELD_HEIGHT * 0.8, "{path}");
    }

    #[test]
    fn labels_do_not_lie_on_each_other() {
        let mut crowd = series(&[(0.0, 0.0), (0.0, 0.0), (0.0, 0.001), (10.0, 1.0)]);
        for point in &mut crowd.points {
            point.label = Some("K = 10".into());
        }
        let svg = draw(&plot(vec![crowd]));
        let places: Vec<&str> = svg
            .lines()
            .filter(|line| line.ends_with(">K = 10</text>"))
            .collect();
        assert!((2..4).contains(&places.len()), "{places:?}");
        let mut unique = places.clone();
        unique.dedup();
        assert_eq!(places, unique);
    }

    #[test]
    fn long_curves_stay_small() {
        let points: Vec<(f64, f64)> = (0..100_000)
            .map(|x| (f64::from(x), f64::from(x % 7)))
            .collect();
        let svg = draw(&plot(vec![series(&points)]));
        assert!(svg.len() < 30_000, "{}", svg.len());
    }
}
