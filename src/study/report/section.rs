//! What the page says, before it is HTML.

use super::html::slug;
use super::plot::Plot;
use super::svg;

/// A part of the page, with a heading.
pub(super) struct Section {
    /// Its place on the page, and what its plots' files begin with.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// Where it comes from.
    pub path: Option<String>,
    /// What it says, in order.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
pub(super) enum Block {
    /// A sentence or two.
    Paragraph(String),
    /// The same, not to be overlooked.
    Warning(String),
    /// Plots side by side.
    Drawings(Vec<Drawing>),
    /// Figures.
    Table(Table),
    /// A file's text as it is.
    Text {
        /// Over it.
        heading: String,
        /// The text.
        text: String,
    },
}

/// A plot, drawn.
pub(super) struct Drawing {
    /// Of its file.
    pub name: String,
    /// An SVG element.
    pub svg: String,
    /// Under it, a sentence.
    pub caption: String,
}

/// Rows of cells; the first cell of each says what the row is.
pub(super) struct Table {
    /// Over it.
    pub heading: String,
    /// Over its columns; none of names and what they are.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A row of a table.
pub(super) struct Row {
    /// Its cells.
    pub cells: Vec<Cell>,
    /// How much it matters.
    pub weight: Weight,
}

/// How much a row matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Weight {
    /// As much as others.
    Usual,
    /// The one to take.
    Chosen,
    /// Beside the point.
    Aside,
}

/// A cell of a table.
pub(super) struct Cell {
    /// What is read.
    pub text: String,
    /// What is said when it is pointed at, if more.
    pub exact: Option<String>,
    /// How it is set.
    pub kind: CellKind,
}

/// How a cell is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CellKind {
    /// As words.
    Text,
    /// In line with other numbers.
    Number,
    /// As a program's text.
    Code,
}

impl Cell {
    /// Words.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new(text, CellKind::Text)
    }

    /// A number.
    pub(super) fn number(text: impl Into<String>) -> Self {
        Self::new(text, CellKind::Number)
    }

    /// A number as `write` has it, in full when it is pointed at; a hyphen where there is none.
    pub(super) fn figure(figure: Option<f64>, write: impl Fn(f64) -> String) -> Self {
        match figure {
            Some(figure) => Self::number(write(figure)).exactly(&figure),
            None => Self::number("-"),
        }
    }

    /// A fingerprint or a path.
    pub(super) fn code(text: impl Into<String>) -> Self {
        Self::new(text, CellKind::Code)
    }

    fn new(text: impl Into<String>, kind: CellKind) -> Self {
        Self {
            text: text.into(),
            exact: None,
            kind,
        }
    }

    /// The same, which says `exact` when it is pointed at.
    pub(super) fn exactly(mut self, exact: &impl ToString) -> Self {
        self.exact = Some(exact.to_string());
        self
    }
}

impl Row {
    /// A row like others.
    pub(super) fn new(cells: Vec<Cell>) -> Self {
        Self {
            cells,
            weight: Weight::Usual,
        }
    }

    /// What `name` is.
    pub(super) fn fact(name: &str, value: Cell) -> Self {
        Self::new(vec![Cell::text(name), value])
    }
}

impl Table {
    /// Names and what they are.
    pub(super) fn facts(heading: &str, rows: Vec<Row>) -> Self {
        Self {
            heading: heading.into(),
            columns: Vec::new(),
            rows,
        }
    }
}

impl Section {
    /// An empty one.
    pub(super) fn new(title: impl Into<String>, path: Option<String>) -> Self {
        let title = title.into();
        Self {
            id: slug(&title),
            title,
            path,
            blocks: Vec::new(),
        }
    }

    /// Adds those of `plots` that show something.
    pub(super) fn draw(&mut self, plots: &[Plot]) {
        let worth = plots.iter().filter(|plot| plot.is_worth_it());
        let drawings = worth.map(|plot| Drawing {
            name: plot.name.clone(),
            svg: svg::draw(plot),
            caption: plot.caption.clone(),
        });
        self.add_drawings(drawings.collect());
    }

    /// Adds `drawings`, if there are any.
    pub(super) fn add_drawings(&mut self, drawings: Vec<Drawing>) {
        if !drawings.is_empty() {
            self.blocks.push(Block::Drawings(drawings));
        }
    }

    /// Adds `table`, unless it is empty.
    pub(super) fn add_table(&mut self, table: Table) {
        if !table.rows.is_empty() {
            self.blocks.push(Block::Table(table));
        }
    }

    /// Its plots.
    pub(super) fn drawings(&self) -> impl Iterator<Item = &Drawing> {
        let blocks = self.blocks.iter();
        blocks
            .filter_map(|block| match block {
                Block::Drawings(drawings) => Some(drawings),
                _ => None,
            })
            .flatten()
    }
}

/// Gives sections of the same name different places.
pub(super) fn name_apart(sections: &mut [Section]) {
    for place in 1..sections.len() {
        let (before, rest) = sections.split_at_mut(place);
        let section = &mut rest[0];
        let name = section.id.clone();
        let mut number = 2;
        while before.iter().any(|other| other.id == section.id) {
            section.id = format!("{name}-{number}");
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_sections_have_one_place() {
        let titles = ["Run a", "Run a", "Run a 2", "run A"];
        let mut sections = titles.map(|title| Section::new(title, None));
        name_apart(&mut sections);
        let ids = sections.map(|section| section.id);
        assert_eq!(ids, ["run-a", "run-a-2", "run-a-2-2", "run-a-3"]);
    }
}
