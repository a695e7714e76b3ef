//! The sweep summary, as `summary.html` and as a table of plain text: what each member came to, and which of them no other
//! beats.

use maud::{Markup, Render, html};
use monosema_page::{Axis, Better, Mark, Scatter, Spacing, Table, chart, format_figure, pareto_front, short};
use serde::Serialize;

/// What stands for a place on a front.
const FRONT: &str = "◆";

/// What a member of a sweep came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemberRow {
    /// Its name: that of its directory.
    pub name: String,
    /// What tells it from the others: keys and their values.
    pub differs: Vec<(String, String)>,
    /// Its architecture's name.
    pub architecture: String,
    /// Mean number of active latents.
    pub l0: Option<f64>,
    /// Fraction of variance unexplained.
    pub fvu: Option<f64>,
    /// Share of dead latents.
    pub dead: Option<f64>,
    /// Loss recovered against zero ablation, if it was evaluated.
    pub loss_recovered: Option<f64>,
    /// Tokens a second.
    pub tokens_per_s: Option<f64>,
    /// Its own page, as a path from the summary.
    pub link: Option<String>,
    /// What to know of it: that it failed, and why.
    pub note: Option<String>,
}

impl MemberRow {
    /// `lr=0.001, sparsity=2`; the name if nothing differs.
    fn difference(&self) -> String {
        if self.differs.is_empty() {
            return self.name.clone();
        }
        self.differs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    }

    /// What a label beside a point has room for. Its shape tells the architecture already.
    fn label(&self) -> String {
        let told = |(_, value): &&(String, String)| *value != self.architecture;
        match self.differs.iter().filter(told).collect::<Vec<_>>().as_slice() {
            [] => self.name.clone(),
            [(key, value)] => format!("{}={value}", key.rsplit('.').next().unwrap_or(key)),
            several => several.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", "),
        }
    }

    /// Whether the name says what differs.
    fn is_named_so(&self) -> bool {
        self.name.replace(' ', "") == self.difference().replace(' ', "")
    }

    fn figures(&self) -> [String; 5] {
        let [l0, fvu, dead, recovered] =
            [self.l0, self.fvu, self.dead, self.loss_recovered].map(format_figure);
        [l0, fvu, dead, recovered, self.tokens_per_s.map_or("–".into(), short)]
    }
}

/// Heads of [`MemberRow::figures`].
const FIGURES: [&str; 5] = ["l0", "fvu", "dead", "loss recovered", "tokens/s"];

/// The trade-off between L0 and another figure.
struct TradeOff {
    name: &'static str,
    better: Better,
    spacing: Spacing,
    value: fn(&MemberRow) -> Option<f64>,
}

const TRADE_OFFS: [TradeOff; 2] = [
    TradeOff { name: "fvu", better: Better::Lower, spacing: Spacing::Linear, value: |row| row.fvu },
    TradeOff {
        name: "loss recovered",
        better: Better::Higher,
        spacing: Spacing::Linear,
        value: |row| row.loss_recovered,
    },
];

impl TradeOff {
    /// Whether each row is on the front.
    fn front(&self, rows: &[MemberRow]) -> Vec<bool> {
        let point = |row: &MemberRow| (row.l0.unwrap_or(f64::NAN), (self.value)(row).unwrap_or(f64::NAN));
        let points: Vec<_> = rows.iter().map(point).collect();
        let mut on_front = vec![false; rows.len()];
        for place in pareto_front(&points, [Better::Lower, self.better]) {
            on_front[place] = true;
        }
        on_front
    }

    fn is_known(&self, rows: &[MemberRow]) -> bool {
        rows.iter().any(|row| (self.value)(row).is_some())
    }

    fn draw(&self, rows: &[MemberRow]) -> Markup {
        let labels: Vec<String> = rows.iter().map(MemberRow::label).collect();
        let mark = |(row, label): (&'_ MemberRow, &'_ String)| {
            Some((row.l0?, (self.value)(row)?)).map(|(x, y)| (x, y, label.clone(), row.architecture.clone()))
        };
        let marks: Vec<_> = rows.iter().zip(&labels).filter_map(mark).collect();
        let marks = marks.iter().map(|(x, y, label, group)| Mark { label, group, x: *x, y: *y }).collect();
        let scatter = Scatter {
            title: &format!("l0 and {}", self.name),
            x: Axis { label: "l0, active latents a token", spacing: Spacing::Log, ..Axis::default() },
            y: Axis { label: self.name, spacing: self.spacing, ..Axis::default() },
            better: [Better::Lower, self.better],
            marks,
        };
        let note = if self.better == Better::Lower { "best: lower left" } else { "best: upper left" };
        chart(&format!("l0 and {}", self.name), note, &scatter)
    }
}

/// The page of a sweep called `name`.
pub fn page(name: &str, rows: &[MemberRow]) -> String {
    let title = format!("Sweep {name}");
    let contents = html! {
        h1 { (title) }
        p.soft {
            (rows.len()) " members. Filled marks are on the front: no other member has a lower l0 and a better figure. "
            (FRONT) " marks their figures in the table."
        }
        (monosema_page::warnings(&notes(rows)))
        div.charts { @for trade_off in known(rows) { (trade_off.draw(rows)) } }
        h2 { "Members" }
        (members(rows))
    };
    monosema_page::page(&title, &contents)
}

/// The same as a table of plain text, for a terminal.
pub fn text(rows: &[MemberRow]) -> String {
    let fronts = fronts(rows);
    let differs = !rows.iter().all(MemberRow::is_named_so);
    let words = ["member"].into_iter().chain(differs.then_some("differs"));
    let head: Vec<String> = words.chain(FIGURES).chain(["front"]).map(str::to_owned).collect();
    let line = |(i, row): (usize, &MemberRow)| -> Vec<String> {
        let words = [Some(row.name.clone()), differs.then(|| row.difference())];
        words.into_iter().flatten().chain(row.figures()).chain([fronts[i].join(", ")]).collect()
    };
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().enumerate().map(line)).collect();
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let numbers = lines[0].len() - 1 - FIGURES.len()..lines[0].len() - 1;
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let space = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
            if numbers.contains(&column) { space + cell } else { cell.clone() + &space }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    for note in notes(rows) {
        text += &note;
        text.push('\n');
    }
    text
}

/// What to know of members, a line each.
fn notes(rows: &[MemberRow]) -> Vec<String> {
    rows.iter().filter_map(|row| Some(format!("{}: {}", row.name, row.note.as_ref()?))).collect()
}

fn known(rows: &[MemberRow]) -> impl Iterator<Item = &'static TradeOff> {
    TRADE_OFFS.iter().filter(|trade_off| trade_off.is_known(rows))
}

/// Of each row, the names of the trade-offs on whose front it is.
fn fronts(rows: &[MemberRow]) -> Vec<Vec<&'static str>> {
    let mut fronts = vec![Vec::new(); rows.len()];
    for trade_off in known(rows) {
        for (names, on_front) in fronts.iter_mut().zip(trade_off.front(rows)) {
            names.extend(on_front.then_some(trade_off.name));
        }
    }
    fronts
}

fn members(rows: &[MemberRow]) -> Markup {
    let fronts = fronts(rows);
    let differs = !rows.iter().all(MemberRow::is_named_so);
    let row = |(i, row): (usize, &MemberRow)| -> Vec<Markup> {
        let name = html! {
            @if let Some(link) = &row.link { a href=(link) { (row.name) } } @else { (row.name) }
        };
        let words = [Some(name), differs.then(|| row.difference().render()), Some(row.architecture.render())];
        let figures = row.figures().into_iter().zip(FIGURES).map(|(figure, name)| html! {
            @if fronts[i].contains(&name) { span title="no other member is better in this and l0" { (FRONT) " " } }
            (figure)
        });
        words.into_iter().flatten().chain(figures).collect()
    };
    let words = [Some("member"), differs.then_some("differs"), Some("architecture")];
    let head: Vec<&str> = words.into_iter().flatten().chain(FIGURES).collect();
    let numbers_from = head.len() - FIGURES.len();
    Table { head, numbers_from, rows: rows.iter().enumerate().map(row).collect() }.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, l0: f64, fvu: f64, recovered: Option<f64>) -> MemberRow {
        MemberRow {
            name: name.into(),
            differs: vec![("train.sparsity".into(), name.into())],
            architecture: "relu".into(),
            l0: Some(l0),
            fvu: Some(fvu),
            dead: Some(0.5),
            loss_recovered: recovered,
            tokens_per_s: Some(12_345.0),
            ..MemberRow::default()
        }
    }

    fn rows() -> Vec<MemberRow> {
        let failed = MemberRow { name: "d".into(), note: Some("loss <NaN>".into()), ..MemberRow::default() };
        // b is beaten by a in FVU, not in what is recovered; c has not been evaluated.
        vec![
            row("a", 10.0, 0.2, Some(0.8)),
            row("b", 20.0, 0.3, Some(0.9)),
            row("c", 30.0, 0.1, None),
            failed,
        ]
    }

    #[test]
    fn fronts_by_hand() {
        let expected: [&[&str]; 4] = [&["fvu", "loss recovered"], &["loss recovered"], &["fvu"], &[]];
        assert_eq!(fronts(&rows()), expected);
        // Without evaluation there is one trade-off.
        assert_eq!(known(&rows()[2..]).count(), 1);
    }

    #[test]
    fn the_table_is_aligned() {
        let lines: Vec<String> = text(&rows()).lines().map(str::to_owned).collect();
        assert_eq!(
            lines[0],
            "member  differs           l0      fvu     dead  loss recovered  tokens/s  front"
        );
        assert_eq!(
            lines[1],
            "a       train.sparsity=a  10  0.20000  0.50000         0.80000     12.3k  fvu, loss recovered"
        );
        assert_eq!(lines[4], "d       d                  –        –        –               –         –");
        assert_eq!(lines[5], "d: loss <NaN>");
    }

    #[test]
    fn the_page_shows_members_and_fronts() {
        let page = page("<sparsity>", &rows());
        for there in ["&lt;sparsity&gt;", "sparsity=a", "loss &lt;NaN&gt;", "<b>l0 and loss recovered</b>"] {
            assert!(page.contains(there), "{there}");
        }
        // Two marks on each front; a legend is for several architectures.
        assert_eq!((page.matches("mark filled").count(), page.matches(FRONT).count()), (4, 5));
        assert!(!page.contains("NaN\"") && !page.contains("<sparsity>"));
    }

    #[test]
    fn names_that_say_what_differs_stand_once() {
        let differs = ["sparsity", "lr"].map(|key| (key.to_owned(), "2".to_owned())).to_vec();
        let row = MemberRow { name: "sparsity=2,lr=2".into(), differs, ..MemberRow::default() };
        assert!(
            text(std::slice::from_ref(&row)).starts_with("member           l0"),
            "{}",
            text(std::slice::from_ref(&row))
        );
        assert_eq!((row.label(), page("x", &[row]).contains("differs")), ("2, 2".into(), false));
    }

    #[test]
    fn a_sweep_of_nothing_has_a_page_and_a_table() {
        assert!(page("x", &[]).contains("0 members"));
        assert!(text(&[]).starts_with("member"));
        let strange = [row("a", f64::NAN, f64::INFINITY, Some(f64::NAN)), row("b", 0.0, -1.0, None)];
        assert!(page("x", &strange).contains("b"));
    }
}
