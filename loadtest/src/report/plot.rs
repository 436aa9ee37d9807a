//! A plot in SVG, drawn here: it needs no script, no font and no network, stands in a page or as a file of its own, and follows the reader's
//! light or dark mode. Pure. Writing to a string cannot fail, so the results of `write!` are left alone throughout.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 52.0;
/// Of the title, and of a line of the legend.
const TITLE: f64 = 34.0;
const LEGEND: f64 = 20.0;
/// An estimate of a character's width in the legend.
const CHARACTER: f64 = 6.6;
/// Colours that the style sheet knows.
const COLOURS: usize = 6;

/// The style of all plots, for a page's head or a file's.
pub(super) const STYLE: &str = ".plot text{font:12px system-ui,sans-serif;fill:var(--ink,#57606a)}.plot .title{font-size:14px;font-weight:600;fill:var(--strong,#1f2328)}\
.plot .grid{stroke:var(--grid,#d8dee4)}.plot .minor{stroke:var(--grid,#d8dee4);opacity:.45}.plot .axis{stroke:var(--ink,#57606a)}\
.plot .back{fill:var(--back,#fff)}.plot polyline{fill:none;stroke-width:1.8}.plot .dashed{stroke-dasharray:5 4}.plot .dotted{stroke-dasharray:1.5 3}.plot .bar{opacity:.55}\
.plot .s0{stroke:var(--s0,#1f6feb);fill:var(--s0,#1f6feb)}.plot .s1{stroke:var(--s1,#cf222e);fill:var(--s1,#cf222e)}.plot .s2{stroke:var(--s2,#1a7f37);fill:var(--s2,#1a7f37)}\
.plot .s3{stroke:var(--s3,#9a6700);fill:var(--s3,#9a6700)}.plot .s4{stroke:var(--s4,#8250df);fill:var(--s4,#8250df)}.plot .s5{stroke:var(--s5,#57606a);fill:var(--s5,#57606a)}\
.plot polyline{fill:none!important}";

/// The colours for readers who prefer the dark: what `STYLE` asks for by name.
pub(super) const DARK: &str = "--ink:#9198a1;--strong:#f0f6fc;--grid:#30363d;--back:#0d1117;--s0:#58a6ff;--s1:#ff7b72;--s2:#3fb950;--s3:#d29922;--s4:#bc8cff;--s5:#9198a1";

/// How an axis runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From zero, evenly.
    Even,
    /// By powers of ten.
    Powers,
    /// The same for "one of so many", whose first mark is the half.
    Tails,
}

/// An axis: what it says, how it runs, and how a value on it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) show: fn(f64) -> String,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stroke {
    Line,
    Dashed,
    Dotted,
    /// With a mark at each point.
    Marked,
    MarkedDashed,
    MarkedDotted,
    /// From each point to the next, down to the axis.
    Bars,
}

#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Series of one colour belong together.
    pub(super) colour: usize,
    pub(super) stroke: Stroke,
    pub(super) points: Vec<(f64, f64)>,
}

#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) across: Axis,
    pub(super) up: Axis,
    pub(super) series: Vec<Series>,
}

impl Plot {
    /// Whether there is anything to see.
    pub(super) fn is_empty(&self) -> bool {
        self.points().count() < 2
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self
            .series
            .iter()
            .flat_map(|series| series.points.iter().copied());
        points.filter(|(x, y)| x.is_finite() && y.is_finite())
    }

    /// As a file of its own.
    pub(super) fn file(&self) -> String {
        let style = format!("<style>{STYLE}@media(prefers-color-scheme:dark){{.plot{{{DARK}}}}}</style>");
        self.svg("xmlns=\"http://www.w3.org/2000/svg\" ", &style)
    }

    /// For a page that has the style already.
    pub(super) fn inline(&self) -> String {
        self.svg("", "")
    }

    fn svg(&self, attributes: &str, style: &str) -> String {
        let legend = self.legend();
        let top = TITLE + LEGEND * legend.len() as f64 + 6.0;
        let height = HEIGHT + top - TITLE;
        let x = Span::new(self.points().map(|p| p.0), self.across.scale, LEFT, WIDTH - RIGHT);
        let y = Span::new(self.points().map(|p| p.1), self.up.scale, height - BOTTOM, top);
        let mut out = format!(
            "<svg {attributes}class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}\">{style}<title>{title}</title>\
             <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/><text class=\"title\" x=\"{LEFT}\" y=\"22\">{title}</text>",
            title = escaped(&self.title)
        );
        for (row, entries) in legend.iter().enumerate() {
            let line = TITLE + LEGEND * row as f64 + 8.0;
            for (at, series) in entries {
                key(&mut out, series, *at, line);
            }
        }
        self.grid(&mut out, &x, &y, height);
        for series in &self.series {
            draw(&mut out, series, &x, &y, self);
        }
        out.push_str("</svg>");
        out
    }

    /// Where each name stands, line by line.
    fn legend(&self) -> Vec<Vec<(f64, &Series)>> {
        let mut rows: Vec<Vec<(f64, &Series)>> = Vec::new();
        let mut at = WIDTH;
        for series in &self.series {
            let width = 34.0 + CHARACTER * series.name.chars().count() as f64 + 14.0;
            if at + width > WIDTH - RIGHT {
                rows.push(Vec::new());
                at = LEFT;
            }
            if let Some(row) = rows.last_mut() {
                row.push((at, series));
            }
            at += width;
        }
        rows
    }

    fn grid(&self, out: &mut String, x: &Span, y: &Span, height: f64) {
        let (bottom, right) = (height - BOTTOM, WIDTH - RIGHT);
        for mark in y.minor() {
            let at = y.place(mark);
            let _ = write!(
                out,
                "<line class=\"minor\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            );
        }
        for mark in y.marks() {
            let at = y.place(mark);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                escaped(&(self.up.show)(mark))
            );
        }
        for mark in x.marks() {
            let at = x.place(mark);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{bottom}\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                y.to,
                bottom + 17.0,
                escaped(&(self.across.show)(mark))
            );
        }
        let _ = write!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>\
             <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
             <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            height - 12.0,
            escaped(self.across.label),
            f64::midpoint(y.to, bottom),
            escaped(self.up.label)
        );
    }
}

/// A sample of the stroke, and the name.
fn key(out: &mut String, series: &Series, at: f64, line: f64) {
    let colour = series.colour % COLOURS;
    let class = class(series.stroke);
    let _ = if series.stroke == Stroke::Bars {
        write!(
            out,
            "<rect class=\"bar s{colour}\" x=\"{at}\" y=\"{}\" width=\"22\" height=\"10\"/>",
            line - 5.0
        )
    } else {
        write!(
            out,
            "<polyline class=\"s{colour}{class}\" points=\"{at},{line} {},{line}\"/>",
            at + 24.0
        )
    };
    let _ = write!(
        out,
        "<text x=\"{}\" y=\"{}\">{}</text>",
        at + 30.0,
        line + 4.0,
        escaped(&series.name)
    );
}

fn class(stroke: Stroke) -> &'static str {
    match stroke {
        Stroke::Line | Stroke::Marked | Stroke::Bars => "",
        Stroke::Dashed | Stroke::MarkedDashed => " dashed",
        Stroke::Dotted | Stroke::MarkedDotted => " dotted",
    }
}

fn draw(out: &mut String, series: &Series, x: &Span, y: &Span, plot: &Plot) {
    let colour = series.colour % COLOURS;
    let points: Vec<_> = series
        .points
        .iter()
        .filter(|(px, py)| px.is_finite() && py.is_finite())
        .map(|&(px, py)| (px, py, x.place(px), y.place(py)))
        .collect();
    if series.stroke == Stroke::Bars {
        let mut from = x.from;
        for (px, py, right, top) in points {
            let _ = write!(
                out,
                "<rect class=\"bar s{colour}\" x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>up to {}: {}</title></rect>",
                (right - from - 0.5).max(0.5),
                (y.from - top).max(0.0),
                escaped(&(plot.across.show)(px)),
                escaped(&(plot.up.show)(py))
            );
            from = right;
        }
        return;
    }
    let _ = write!(
        out,
        "<polyline class=\"s{colour}{}\" points=\"",
        class(series.stroke)
    );
    for (_, _, at, up) in &points {
        let _ = write!(out, "{at:.1},{up:.1} ");
    }
    out.push_str("\"/>");
    if let Stroke::Marked | Stroke::MarkedDashed | Stroke::MarkedDotted = series.stroke {
        for (px, py, at, up) in points {
            let _ = write!(
                out,
                "<circle class=\"s{colour}\" cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"2.6\"><title>{}: {} at {}</title></circle>",
                escaped(&series.name),
                escaped(&(plot.up.show)(py)),
                escaped(&(plot.across.show)(px))
            );
        }
    }
}

/// Maps values to places.
#[derive(Debug)]
struct Span {
    scale: Scale,
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Span {
    fn new(values: impl Iterator<Item = f64>, scale: Scale, from: f64, to: f64) -> Self {
        let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values {
            least = least.min(value);
            most = most.max(value);
        }
        match scale {
            Scale::Powers | Scale::Tails => {
                // A tenth is the least that is told apart; whole powers leave room above and below.
                least = least.max(0.1);
                most = most.max(least * 10.0);
            }
            Scale::Even => {
                least = least.min(0.0);
                most = if most > least {
                    most + (most - least) * 0.04
                } else {
                    least + 1.0
                };
            }
        }
        Self {
            scale,
            least,
            most,
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Even => (value - self.least) / (self.most - self.least),
            Scale::Powers | Scale::Tails => {
                (value.max(self.least) / self.least).ln() / (self.most / self.least).ln()
            }
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    fn marks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Even => {
                let rough = (self.most - self.least) / 5.0;
                let power = 10f64.powf(rough.log10().floor());
                let nice = [1.0, 2.0, 5.0, 10.0].map(|n| n * power);
                let step = nice.into_iter().find(|n| *n >= rough).unwrap_or(rough);
                let first = (self.least / step).ceil() as i64;
                self.within((first..first + 12).map(|n| n as f64 * step))
            }
            Scale::Powers => {
                let marks = self.powers(&[1.0]);
                // A single power tells nothing of the way between.
                if marks.len() > 2 {
                    marks
                } else {
                    self.powers(&[1.0, 2.0, 5.0])
                }
            }
            Scale::Tails => {
                let tails = (1..14).map(|n| 10f64.powi(n));
                self.within(std::iter::once(2.0).chain(tails))
            }
        }
    }

    /// Lines between the marks.
    fn minor(&self) -> Vec<f64> {
        match self.scale {
            Scale::Even | Scale::Tails => Vec::new(),
            Scale::Powers => self.powers(&[2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
        }
    }

    fn powers(&self, times: &[f64]) -> Vec<f64> {
        let first = self.least.log10().floor() as i32;
        let all = (first..first + 14).flat_map(|n| times.iter().map(move |t| t * 10f64.powi(n)));
        self.within(all)
    }

    fn within(&self, marks: impl Iterator<Item = f64>) -> Vec<f64> {
        marks
            .filter(|mark| (self.least * 0.999_999..=self.most * 1.000_001).contains(mark))
            .collect()
    }
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether every element of this XML is closed by its own name.
    pub(crate) fn is_well_formed(xml: &str) -> bool {
        let mut open: Vec<&str> = Vec::new();
        for piece in xml.split('<').skip(1) {
            let Some((tag, text)) = piece.split_once('>') else {
                return false;
            };
            if text.contains('>') || tag.matches('"').count() % 2 == 1 {
                return false;
            }
            if let Some(closed) = tag.strip_prefix('/') {
                if open.pop() != Some(closed) {
                    return false;
                }
            } else if !tag.ends_with('/') {
                open.push(tag.split(' ').next().unwrap_or(tag));
            }
        }
        open.is_empty()
    }

    fn plot(points: Vec<(f64, f64)>, stroke: Stroke, scale: Scale) -> Plot {
        let axis = Axis {
            label: "µs & \"more\"",
            scale,
            show: |value| format!("<{value:.0}>"),
        };
        Plot {
            title: "a < b".to_owned(),
            across: axis,
            up: axis,
            series: vec![Series {
                name: "<target>".to_owned(),
                colour: 7,
                stroke,
                points,
            }],
        }
    }

    #[test]
    fn every_plot_is_well_formed_whatever_its_names_and_numbers_are() {
        let odd = vec![
            (0.0, 0.0),
            (1.0, f64::NAN),
            (3.0, 1e12),
            (f64::INFINITY, 2.0),
            (7.0, -4.0),
        ];
        for stroke in [Stroke::Line, Stroke::Dotted, Stroke::MarkedDashed, Stroke::Bars] {
            for scale in [Scale::Even, Scale::Powers] {
                let plot = plot(odd.clone(), stroke, scale);
                for svg in [plot.file(), plot.inline()] {
                    assert!(is_well_formed(&svg), "{svg}");
                    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                    assert!(svg.contains("&lt;target&gt;") && svg.contains("a &lt; b"));
                }
            }
        }
        assert!(!is_well_formed("<a><b></a></b>") && !is_well_formed("<a"));
    }

    #[test]
    fn a_file_brings_its_style_and_namespace_and_a_page_has_them_already() {
        let plot = plot(vec![(1.0, 1.0), (2.0, 2.0)], Stroke::Line, Scale::Even);
        assert!(plot.file().contains("xmlns=") && plot.file().contains("prefers-color-scheme:dark"));
        assert!(!plot.inline().contains("<style>"));
    }

    #[test]
    fn a_plot_of_fewer_than_two_points_shows_nothing() {
        assert!(plot(vec![(1.0, 1.0)], Stroke::Line, Scale::Even).is_empty());
        assert!(plot(vec![(1.0, f64::NAN), (2.0, 1.0)], Stroke::Line, Scale::Even).is_empty());
    }

    #[test]
    fn an_axis_places_its_ends_and_has_a_readable_number_of_marks() {
        for scale in [Scale::Even, Scale::Powers] {
            for values in [
                [0.0, 10.0, 1_000.0],
                [5.0, 5.0, 5.0],
                [120.0, 130.0, 190.0],
                [1.0, 1e4, 1e9],
            ] {
                let span = Span::new(values.into_iter(), scale, 100.0, 500.0);
                assert!(span.place(values[2]) <= 500.0 && span.place(values[0]) >= 100.0);
                assert!(
                    (2..14).contains(&span.marks().len()),
                    "{scale:?} {values:?} {:?}",
                    span.marks()
                );
            }
        }
    }
}
