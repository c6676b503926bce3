//! Sections as an HTML page.

use std::fmt::Write;

use super::html::escape;
use super::palette::page_style;
use super::section::{Block, Cell, CellKind, Section, Table, Weight};

/// A browser that reads this loads nothing and runs nothing, whatever else the page might hold.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// A page of `sections` that needs nothing else.
pub(super) fn page(sections: &[Section]) -> String {
    let title = match sections {
        [section] => format!("{} - Telly report", section.title),
        _ => "Telly report".into(),
    };
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{}</title>\n<style>\n{}</style>\n</head>\n<body>\n<header><h1>Telly report</h1>\n",
        escape(&title),
        page_style()
    );
    if sections.len() > 1 {
        page.push_str("<nav aria-label=\"Contents\"><ul>\n");
        for section in sections {
            let _ = writeln!(
                page,
                "<li><a href=\"#{}\">{}</a></li>",
                section.id,
                escape(&section.title)
            );
        }
        page.push_str("</ul></nav>\n");
    }
    page.push_str("</header>\n<main>\n");
    for section in sections {
        write_section(&mut page, section);
    }
    let _ = write!(
        page,
        "</main>\n<footer>Written by telly {}.</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    page
}

fn write_section(page: &mut String, section: &Section) {
    let _ = writeln!(
        page,
        "<section id=\"{}\">\n<h2>{}</h2>",
        section.id,
        escape(&section.title)
    );
    if let Some(path) = &section.path {
        let _ = writeln!(page, "<p class=\"path\"><code>{}</code></p>", escape(path));
    }
    for block in &section.blocks {
        match block {
            Block::Paragraph(text) => {
                let _ = writeln!(page, "<p>{}</p>", escape(text));
            }
            Block::Warning(text) => {
                let _ = writeln!(page, "<p class=\"warning\">{}</p>", escape(text));
            }
            Block::Drawings(drawings) => {
                page.push_str("<div class=\"plots\">\n");
                for drawing in drawings {
                    let _ = writeln!(page, "<figure>\n{}", drawing.svg);
                    if !drawing.caption.is_empty() {
                        let caption = escape(&drawing.caption);
                        let _ = writeln!(page, "<figcaption>{caption}</figcaption>");
                    }
                    page.push_str("</figure>\n");
                }
                page.push_str("</div>\n");
            }
            Block::Table(table) => write_table(page, table),
            Block::Text { heading, text } => {
                let _ = writeln!(
                    page,
                    "<h3>{0}</h3>\n<div class=\"scroll\" role=\"region\" aria-label=\"{0}\" tabindex=\"0\"><pre>{1}</pre></div>",
                    escape(heading),
                    escape(text)
                );
            }
        }
    }
    page.push_str("</section>\n");
}

fn write_table(page: &mut String, table: &Table) {
    let facts = table.columns.is_empty();
    let class = if facts { " class=\"facts\"" } else { "" };
    let _ = writeln!(
        page,
        "<h3>{0}</h3>\n<div class=\"scroll\" role=\"region\" aria-label=\"{0}\" tabindex=\"0\"><table{class}>",
        escape(&table.heading)
    );
    if !facts {
        page.push_str("<thead><tr>");
        for (place, column) in table.columns.iter().enumerate() {
            let cells = table.rows.iter().filter_map(|row| row.cells.get(place));
            let numbers = cells.into_iter().any(|cell| cell.kind == CellKind::Number);
            let class = if numbers { " class=\"number\"" } else { "" };
            let _ = write!(page, "<th scope=\"col\"{class}>{}</th>", escape(column));
        }
        page.push_str("</tr></thead>\n");
    }
    page.push_str("<tbody>\n");
    for row in &table.rows {
        page.push_str(match row.weight {
            Weight::Usual => "<tr>",
            Weight::Chosen => "<tr class=\"chosen\">",
            Weight::Aside => "<tr class=\"aside\">",
        });
        for (place, cell) in row.cells.iter().enumerate() {
            write_cell(page, cell, place == 0, facts);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}

fn write_cell(page: &mut String, cell: &Cell, names_row: bool, fact: bool) {
    let exact = cell.exact.as_ref().filter(|exact| **exact != cell.text);
    let exact = exact.map(|exact| format!(" title=\"{}\"", escape(exact)));
    // A lone column of what is named reads better from the left.
    let number = cell.kind == CellKind::Number && !fact;
    let class = if number { " class=\"number\"" } else { "" };
    let text = escape(&cell.text);
    let text = match cell.kind {
        CellKind::Code => format!("<code>{text}</code>"),
        _ => text,
    };
    let exact = exact.unwrap_or_default();
    let _ = if names_row {
        write!(page, "<th scope=\"row\"{class}{exact}>{text}</th>")
    } else {
        write!(page, "<td{class}{exact}>{text}</td>")
    };
}

#[cfg(test)]
mod tests {
    use super::super::section::Row;
    use super::*;

    #[test]
    fn texts_from_files_stay_texts() {
        let nasty = "<script>alert(\"'&\")</script>";
        let mut section = Section::new(nasty, Some(nasty.into()));
        section.blocks = vec![
            Block::Paragraph(nasty.into()),
            Block::Warning(nasty.into()),
            Block::Text {
                heading: nasty.into(),
                text: nasty.into(),
            },
        ];
        section.add_table(Table {
            heading: nasty.into(),
            columns: vec![nasty.into()],
            rows: vec![Row::new(vec![Cell::code(nasty).exactly(&"\"><script>")])],
        });
        let page = page(&[section]);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(&quot;&#39;&amp;&quot;)"));
    }
}
