//! The dashboard and the alert rules beside the documents: everything that they name is there, and every figure has a unit.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use crate::{Scrape, stored};

fn document(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/grafana")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Words of an expression that are not within quotes.
fn words(expression: &str) -> Vec<&str> {
    let unquoted = expression.split('"').step_by(2);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    unquoted
        .flat_map(move |part| part.split(move |c| !is_part(c)))
        .filter(|word| !word.is_empty())
        .collect()
}

fn metrics(expression: &str) -> Vec<&str> {
    let words = words(expression).into_iter();
    words
        .filter(|word| word.starts_with("cauce_") || word.starts_with("process_"))
        .collect()
}

/// Labels that are matched, grouped by, or shown.
fn labels(expression: &str) -> Vec<String> {
    let mut labels = Vec::new();
    for rest in expression.split("by (").skip(1) {
        let group = rest.split(')').next().unwrap_or_default();
        labels.extend(group.split(',').map(|label| label.trim().to_owned()));
    }
    for rest in expression.split('{').skip(1) {
        let inside = rest.split('}').next().unwrap_or_default();
        let matchers = inside.split("\",").filter(|matcher| matcher.contains('='));
        labels.extend(matchers.map(|matcher| {
            matcher
                .split(['=', '!'])
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        }));
    }
    labels
}

/// `{{name}}` in a legend.
fn shown(legend: &str) -> impl Iterator<Item = &str> {
    legend
        .split("{{")
        .skip(1)
        .filter_map(|rest| rest.split("}}").next())
}

#[test]
fn metrics_and_labels_are_found_in_an_expression() {
    let expression = "histogram_quantile(0.9, sum by (le, kind) (rate(cauce_x_bucket{job=~\"$job\",code!=\"cauce_no\"}[5m]))) / cauce_y{a=\"b\"}";
    assert_eq!(metrics(expression), ["cauce_x_bucket", "cauce_y"]);
    assert_eq!(labels(expression), ["le", "kind", "job", "code", "a"]);
    assert_eq!(
        shown("p99, {{kind}} of {{shard}}").collect::<Vec<_>>(),
        ["kind", "shard"]
    );
}

struct Known {
    metrics: BTreeSet<String>,
    labels: BTreeSet<String>,
}

/// What a broker with a database exposes, and the labels that whoever scrapes adds.
async fn known() -> Known {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = stored(dir.path());
    let scrape = Scrape::of(&broker).await;
    let added = ["job", "instance"].map(str::to_owned);
    Known {
        metrics: scrape.names().map(str::to_owned).collect(),
        labels: scrape.labels().map(str::to_owned).chain(added).collect(),
    }
}

impl Known {
    fn faults<'a>(&'a self, expression: &'a str) -> impl Iterator<Item = String> + 'a {
        let metrics = metrics(expression);
        let names_one = !metrics.is_empty() || words(expression).contains(&"up");
        let unknown = metrics.into_iter().filter(|name| !self.metrics.contains(*name));
        let unknown = unknown.map(|name| format!("there is no {name}"));
        let labels = labels(expression).into_iter();
        let labels = labels.filter(|label| !self.labels.contains(label));
        let none = (!names_one).then(|| format!("no metric in {expression}"));
        unknown
            .chain(labels.map(|label| format!("there is no label {label}")))
            .chain(none)
    }
}

#[tokio::test]
async fn every_panel_asks_for_what_there_is_and_has_a_unit() {
    let known = known().await;
    let dashboard: Value = serde_json::from_str(&document("cauce.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let (mut faults, mut expressions, mut ids) = (Vec::new(), 0, BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or("a panel without a title");
        if !ids.insert(panel["id"].as_u64().expect("an id")) {
            faults.push(format!("{title}: its id is another's"));
        }
        if panel["type"] == "row" {
            continue;
        }
        if panel["fieldConfig"]["defaults"]["unit"]
            .as_str()
            .is_none_or(str::is_empty)
        {
            faults.push(format!("{title}: no unit"));
        }
        if panel["description"].as_str().is_none_or(str::is_empty) {
            faults.push(format!("{title}: no description"));
        }
        for target in panel["targets"].as_array().expect("targets") {
            expressions += 1;
            let expression = target["expr"].as_str().expect("an expression");
            faults.extend(known.faults(expression).map(|fault| format!("{title}: {fault}")));
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            let grouped = labels(expression);
            for label in shown(legend).filter(|label| !grouped.iter().any(|by| by == label)) {
                faults.push(format!(
                    "{title}: the legend shows {label}, and nothing is grouped by it"
                ));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "docs/grafana/cauce.json\n{}",
        faults.join("\n")
    );
    assert!(expressions > 80, "{expressions} expressions were found");
}

#[tokio::test]
async fn every_alert_asks_for_what_there_is_and_says_what_to_do() {
    let known = known().await;
    let rules = document("alerts.yml");
    let (mut faults, mut alerts) = (Vec::new(), 0);
    for rule in rules.split("- alert: ").skip(1) {
        alerts += 1;
        let name = rule.lines().next().unwrap_or_default();
        let field = |field: &str| {
            let lines = rule.lines().map(str::trim);
            let mut values = lines.filter_map(|line| line.strip_prefix(field)?.strip_prefix(": "));
            values.next().unwrap_or_default().to_owned()
        };
        for wanted in ["expr", "for", "severity", "summary", "action"] {
            if field(wanted).is_empty() {
                faults.push(format!("{name}: no {wanted}"));
            }
        }
        faults.extend(
            known
                .faults(&field("expr"))
                .map(|fault| format!("{name}: {fault}")),
        );
    }
    assert!(
        faults.is_empty(),
        "docs/grafana/alerts.yml\n{}",
        faults.join("\n")
    );
    assert!(alerts > 10, "{alerts} alerts were found");
}
