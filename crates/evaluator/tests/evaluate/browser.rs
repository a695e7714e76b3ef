//! The pages in a real browser: nothing is out of its place, and the figures can be read back.
//!
//! Needs Chromium (`chromium`, `chromium-browser` or `google-chrome` on the PATH, or what `MONOSEMA_CHROMIUM` names). Where there is
//! none the tests say so and do nothing; continuous integration installs it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use monosema_evaluator::{EvalSummary, HTML_FILE};
use serde_json::Value;

use crate::world::World;

/// Appended to a copy of a page: writes what a reader sees into the document.
const LOOK: &str = r##"<script>
    const figures = [...document.querySelectorAll("[data-figure]")].map(cell => ({
        ...cell.dataset, shown: cell.innerText, visible: cell.getClientRects().length > 0,
    }));
    const wide = [...document.querySelectorAll("body *")].filter(element =>
        !element.closest(".scroll, svg, pre") && element.getBoundingClientRect().right > innerWidth + 1);
    const seen = {
        figures,
        title: document.title,
        wide: wide.map(element => element.outerHTML.slice(0, 200)),
        background: getComputedStyle(document.body).backgroundColor,
        charts: document.querySelectorAll("svg").length,
        width: innerWidth,
    };
    const place = document.createElement("pre");
    place.id = "seen";
    place.textContent = JSON.stringify(seen);
    document.body.append(place);
</script>"##;

fn chromium() -> Option<PathBuf> {
    if let Some(named) = env::var_os("MONOSEMA_CHROMIUM") {
        return Some(named.into());
    }
    let directories: Vec<_> = env::split_paths(&env::var_os("PATH")?).collect();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = names.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let found = found.into_iter().find(|path| path.is_file());
    if found.is_none() {
        #[allow(clippy::print_stderr, reason = "who runs the tests should know")]
        {
            eprintln!("skipped: no Chromium on the PATH, and MONOSEMA_CHROMIUM names none");
        }
    }
    found
}

/// Opens a page as a phone or a desk would, and returns what [`LOOK`] saw there.
fn look(browser: &Path, page: &Path, size: &str, dark: bool) -> Value {
    let copy = page.with_extension("looked-at.html");
    fs::write(&copy, fs::read_to_string(page).unwrap().replace("</body>", &format!("{LOOK}</body>")))
        .unwrap();
    let profile = tempfile::tempdir().unwrap();
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]);
    // Of many a container /dev/shm is too small for it.
    command.args(["--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]);
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(format!("--window-size={size}"));
    if dark {
        command.arg("--force-dark-mode").arg("--blink-settings=preferredColorScheme=0");
    }
    let output = command.arg(format!("file://{}", copy.display())).output().unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}");
    let console: Vec<_> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
    let seen = dom.split_once("<pre id=\"seen\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let seen = seen.unwrap_or_else(|| panic!("the page did not load: {dom}\n{log}")).0;
    let plain = seen.replace("&lt;", "<").replace("&gt;", ">").replace("&nbsp;", " ").replace("&amp;", "&");
    serde_json::from_str(&plain).unwrap()
}

#[test]
fn a_report_can_be_read_back_from_a_phone_and_a_desk() {
    let Some(browser) = chromium() else { return };
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.random());
    let page = world.path("out").join(HTML_FILE);
    let mut backgrounds = Vec::new();
    for (size, dark) in [("500,900", false), ("1400,900", false), ("1400,900", true)] {
        let seen = look(&browser, &page, size, dark);
        assert_eq!(seen["wide"], Value::Array(Vec::new()), "reaches beyond a window of {}", seen["width"]);
        assert!(seen["charts"].as_u64().unwrap() >= 9, "{}", seen["charts"]);
        let figures = seen["figures"].as_array().unwrap();
        for (name, value) in &report.metrics {
            let mut cells = figures.iter().filter(|cell| cell["figure"] == **name && cell["text"] == "all");
            let cell = cells.next().unwrap_or_else(|| panic!("{name} is not on the page"));
            let number = |key: &str| cell[key].as_str().map(|text| text.parse::<f64>().unwrap());
            assert_eq!(number("value"), *value, "{name}");
            let interval = report.intervals.of.get(name).copied();
            assert_eq!(number("low").zip(number("high")), interval.map(Into::into), "{name}");
            let shown = monosema_evaluator::format_figure(*value);
            assert!(cell["shown"].as_str().unwrap().starts_with(&shown), "{name}: {}", cell["shown"]);
            assert_eq!((cells.next(), &cell["visible"]), (None, &Value::Bool(true)), "{name}");
        }
        backgrounds.push(seen["background"].clone());
    }
    assert_eq!(backgrounds[0], backgrounds[1]);
    assert_ne!(backgrounds[1], backgrounds[2], "dark is light");
}

#[test]
fn a_comparison_can_be_read_back() {
    let Some(browser) = chromium() else { return };
    let world = World::new();
    let dictionaries = [("random", world.random()), ("identity", world.identity())];
    let reports =
        dictionaries.map(|(name, directory)| (name.to_owned(), world.evaluate(&world.config(), &directory)));
    let summary = EvalSummary { reports: reports.to_vec(), together: None };
    summary.write(&world.path("out")).unwrap();
    let seen = look(&browser, &world.path("out").join(EvalSummary::HTML_FILE), "500,900", false);
    assert_eq!(seen["wide"], Value::Array(Vec::new()));
    let figures = seen["figures"].as_array().unwrap();
    for (name, report) in &reports {
        let cell =
            figures.iter().find(|cell| cell["dictionary"] == **name && cell["figure"] == "fvu").unwrap();
        assert_eq!(cell["value"].as_str().unwrap().parse::<f64>().unwrap(), report.figure("fvu").unwrap());
    }
}
