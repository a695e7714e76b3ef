//! Numbers and words in rows: tiles, facts, tables, and a JSON value by its key paths.

use maud::{Markup, Render, html};
use serde_json::Value;

/// What a reader looks for first: each figure above its words.
pub fn tiles<'a>(tiles: impl IntoIterator<Item = (String, &'a str)>) -> Markup {
    html! {
        div.tiles {
            @for (figure, words) in tiles { div.tile { b { (figure) } span { (words) } } }
        }
    }
}

/// Names and what belongs to them.
pub fn facts<N: Render, V: Render>(rows: impl IntoIterator<Item = (N, V)>) -> Markup {
    html! {
        div.scroll {
            table {
                tbody {
                    @for (name, value) in rows { tr { th scope="row" { (name) } td.breakable { (value) } } }
                }
            }
        }
    }
}

/// A table whose first column names the rows. On a phone it scrolls below that column.
#[derive(Clone, Debug, Default)]
pub struct Table<'a> {
    /// Heads of the columns.
    pub head: Vec<&'a str>,
    /// The first column of numbers, which are set flush right; all after it are numbers too.
    pub numbers_from: usize,
    /// The rows.
    pub rows: Vec<Vec<Markup>>,
}

impl Render for Table<'_> {
    fn render(&self) -> Markup {
        let class = |column: usize| (column >= self.numbers_from).then_some("number");
        html! {
            div.scroll {
                table {
                    thead {
                        tr {
                            @for (column, name) in self.head.iter().enumerate() { th class=[class(column)] { (name) } }
                        }
                    }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (column, cell) in row.iter().enumerate() {
                                    @if column == 0 { th scope="row" { (cell) } }
                                    @else { td class=[class(column)] { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A JSON value as a table of the paths of its keys (`schedule.lr`) and what stands there.
pub fn key_paths(value: &Value) -> Markup {
    let mut rows = Vec::new();
    flatten(String::new(), value, &mut rows);
    facts(rows.into_iter().map(|(path, value)| (html! { code { (path) } }, html! { code { (value) } })))
}

fn flatten(path: String, value: &Value, rows: &mut Vec<(String, String)>) {
    let nested = |value: &Value| matches!(value, Value::Object(_) | Value::Array(_));
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(path, value, rows);
            }
        }
        // Lists of plain values are read best as such.
        Value::Array(list) if list.iter().any(nested) => {
            for (i, value) in list.iter().enumerate() {
                flatten(format!("{path}[{i}]"), value, rows);
            }
        }
        Value::String(text) => rows.push((path, text.clone())),
        Value::Null => rows.push((path, "–".into())),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(Value::to_string).collect();
            rows.push((path, format!("[{}]", items.join(", "))));
        }
        other => rows.push((path, other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_by_their_paths() {
        let value = json!({
            "lr": 0.5, "hook": "blocks.0", "adam": { "betas": [0.9, 0.999], "eps": null },
            "groups": [{ "n": 1 }, 2], "none": {}, "empty": [],
        });
        let mut rows = Vec::new();
        flatten(String::new(), &value, &mut rows);
        rows.sort();
        let expected = [
            ("adam.betas", "[0.9, 0.999]"),
            ("adam.eps", "–"),
            ("empty", "[]"),
            ("groups[0].n", "1"),
            ("groups[1]", "2"),
            ("hook", "blocks.0"),
            ("lr", "0.5"),
            ("none", "{}"),
        ];
        assert_eq!(rows, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));
    }

    #[test]
    fn words_are_escaped() {
        let evil = "<script>alert('1')</script>";
        let cell = || html! { (evil) };
        let pages = [
            tiles([(evil.to_owned(), evil)]),
            facts([(evil, evil)]),
            Table { head: vec![evil], numbers_from: 1, rows: vec![vec![cell(), cell()]] }.render(),
            key_paths(&json!({ evil: evil })),
        ];
        for page in pages {
            let page = page.into_string();
            assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
        }
    }

    #[test]
    fn numbers_are_flush_right_from_their_first_column_on() {
        let cell = |text| html! { (text) };
        let row = vec![cell("a"), cell("b"), cell("1")];
        let html =
            Table { head: vec!["x", "y", "z"], numbers_from: 2, rows: vec![row] }.render().into_string();
        assert!(html.contains(r#"<th scope="row">a</th><td>b</td><td class="number">1</td>"#), "{html}");
        assert!(html.contains(r#"<th>x</th><th>y</th><th class="number">z</th>"#), "{html}");
    }
}
