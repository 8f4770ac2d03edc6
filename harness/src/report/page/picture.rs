//! A timeline as a picture.

use maud::{Markup, html};

use super::super::timeline::{Bar, Lane, Point, Timeline};

const WIDTH: f64 = 1000.0;
/// Room for the names of the lanes.
const NAMES: f64 = 132.0;
const ROW: f64 = 24.0;
/// Room above the lanes, for the names of the marks.
const TOP: f64 = 46.0;
const BOTTOM: f64 = 22.0;
/// A gap of this many seconds is drawn to scale. Of a longer one, only the logarithm of the rest is.
const TRUE_GAP: f64 = 0.25;
/// A gap of this many seconds is labelled.
const LONG_GAP: f64 = 1.0;
/// Points that are nearer than this are drawn as one.
const NEAR: f64 = 5.0;
/// Of points that are drawn as one, so many are told. Most of a page are points.
const TOLD: usize = 3;
/// So many letters of a point are told.
const LETTERS: usize = 90;
/// About how wide a letter is.
const LETTER: f64 = 6.1;

/// Where times are in the picture. Time in which nothing happens is drawn shorter.
struct Scale {
    knots: Vec<(f64, f64)>,
}

impl Scale {
    fn of(timeline: &Timeline) -> Scale {
        let of_lane = |lane: &Lane| {
            let bars = lane.bars.iter().flat_map(|bar| [bar.from, bar.to]);
            bars.chain(lane.points.iter().map(|point| point.at)).collect::<Vec<_>>()
        };
        let mut times: Vec<f64> = timeline.lanes.iter().flat_map(of_lane).collect();
        times.extend(timeline.marks.iter().map(|mark| mark.at));
        times.extend([0.0, timeline.end]);
        times.sort_by(f64::total_cmp);
        times.dedup();
        let length = |gap: f64| if gap <= TRUE_GAP { gap } else { TRUE_GAP * (1.0 + (gap / TRUE_GAP).ln()) };
        let mut knots = vec![(times[0], 0.0)];
        for pair in times.windows(2) {
            let before = knots.last().map_or(0.0, |(_, x)| *x);
            knots.push((pair[1], before + length(pair[1] - pair[0])));
        }
        let all = knots.last().map_or(0.0, |(_, x)| *x).max(1e-9);
        let room = WIDTH - NAMES - 12.0;
        knots.iter_mut().for_each(|(_, x)| *x = NAMES + *x / all * room);
        Scale { knots }
    }

    fn x(&self, time: f64) -> f64 {
        let after = self.knots.partition_point(|(known, _)| *known < time);
        match (after.checked_sub(1).and_then(|before| self.knots.get(before)), self.knots.get(after)) {
            (Some((t0, x0)), Some((t1, x1))) if t1 > t0 => x0 + (time - t0) / (t1 - t0) * (x1 - x0),
            (_, Some((_, x))) | (Some((_, x)), None) => *x,
            (None, None) => NAMES,
        }
    }

    /// Times with their places, evenly spread.
    fn ticks(&self) -> Vec<(f64, f64)> {
        let (first, last) = (self.knots[0].1, self.knots[self.knots.len() - 1].1);
        let at = |part: u32| {
            let wanted = first + (last - first) * f64::from(part) / 6.0;
            let after = self.knots.partition_point(|(_, x)| *x < wanted - 1e-6).min(self.knots.len() - 1);
            let ((t0, x0), (t1, x1)) = (self.knots[after.saturating_sub(1)], self.knots[after]);
            let time = if x1 > x0 { t0 + (wanted - x0) / (x1 - x0) * (t1 - t0) } else { t1 };
            (time, wanted)
        };
        let mut ticks: Vec<_> = (0..=6).map(at).collect();
        ticks.dedup_by(|one, other| (one.1 - other.1).abs() < 30.0);
        ticks
    }

    /// The long gaps: where they begin and end, and how long they are.
    fn gaps(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let gap = |pair: &[(f64, f64)]| (pair[0].1, pair[1].1, pair[1].0 - pair[0].0);
        self.knots.windows(2).map(gap).filter(|(.., length)| *length >= LONG_GAP)
    }
}

/// The picture of a timeline. `about` is its title for those who cannot see it.
pub fn draw(timeline: &Timeline, about: &str) -> Markup {
    framed(height(timeline), about, &parts(timeline))
}

/// A picture that is in the page once, and drawn wherever it is needed.
pub struct Shared {
    id: String,
    height: f64,
}

impl Shared {
    /// The picture of a timeline with an id of its own, and what the page must have once for it.
    pub fn of(timeline: &Timeline, id: String) -> (Shared, Markup) {
        // In a copy, the rules of style see no more than what is copied.
        let once = html! { svg.once aria-hidden="true" { g.time id=(id) { (parts(timeline)) } } };
        (Shared { id, height: height(timeline) }, once)
    }

    /// The picture, here. `about` is its title for those who cannot see it.
    pub fn here(&self, about: &str) -> Markup {
        framed(self.height, about, &html! { use href=(format!("#{}", self.id)) {} })
    }
}

fn height(timeline: &Timeline) -> f64 {
    TOP + timeline.lanes.len() as f64 * ROW + BOTTOM
}

fn framed(height: f64, about: &str, parts: &Markup) -> Markup {
    html! {
        div.wide { svg.time viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(about) { (parts) } }
    }
}

fn parts(timeline: &Timeline) -> Markup {
    let scale = Scale::of(timeline);
    let floor = height(timeline) - BOTTOM;
    html! {
        @for (from, to, length) in scale.gaps() {
            rect.gap x=(n(from)) y=(n(TOP)) width=(n(to - from)) height=(n(floor - TOP)) {}
            @if to - from > 34.0 {
                text.tick x=(n((from + to) / 2.0)) y=(n(floor - 4.0)) text-anchor="middle" { (seconds(length)) }
            }
        }
        @for (lane, number) in timeline.lanes.iter().zip(0_u16..) {
            (row(lane, TOP + f64::from(number) * ROW, &scale))
        }
        @for (time, x) in scale.ticks() {
            path.axis d=(format!("M{} {}v4", n(x), n(floor))) {}
            text.tick x=(n(x)) y=(n(floor + 16.0)) text-anchor=(anchor(x)) { (seconds(time)) }
        }
        (marks(timeline, &scale, floor))
    }
}

fn marks(timeline: &Timeline, scale: &Scale, floor: f64) -> Markup {
    html! {
        @for (mark, number) in timeline.marks.iter().zip(0_u16..) {
            @let (x, y) = (scale.x(mark.at), 12.0 + f64::from(number % 3) * 13.0);
            g class=(format!("mark {}", mark.name)) {
                title { (mark.name) " at " (seconds(mark.at)) ": " (mark.words) }
                path d=(format!("M{} {}V{}", n(x), n(y + 3.0), n(floor))) {}
                text x=(n(x)) y=(n(y)) text-anchor=(anchor(x)) {
                    (mark.name) ": " (cut(&mark.words, ((if x > WIDTH / 2.0 { x - 80.0 } else { WIDTH - x - 80.0 }) / LETTER) as usize))
                }
            }
        }
    }
}

fn anchor(x: f64) -> &'static str {
    if x > WIDTH / 2.0 { "end" } else { "start" }
}

fn row(lane: &Lane, y: f64, scale: &Scale) -> Markup {
    let middle = y + ROW / 2.0;
    html! {
        path.lane d=(format!("M0 {}H{WIDTH}", n(y + ROW))) {}
        text.name x="0" y=(n(middle + 4.0)) { (cut(&lane.name, 20)) }
        @for bar in &lane.bars {
            @let (from, to) = (scale.x(bar.from), scale.x(bar.to).max(scale.x(bar.from) + 2.0));
            g class=(match (bar.stuck, bar.open) { (true, _) => "bar stuck", (_, true) => "bar open", _ => "bar" }) {
                title { (seconds(bar.from)) " to " (seconds(bar.to)) ": " (bar.words) }
                rect x=(n(from)) y=(n(y + 4.0)) width=(n(to - from)) height=(n(ROW - 8.0)) rx="2" {}
                @let letter = if bar.stuck { LETTER * 1.1 } else { LETTER };
                @let letters = ((to - from - 8.0) / letter) as usize;
                @if letters > 8 {
                    text x=(n(from + 4.0)) y=(n(middle + 4.0)) { (cut(&bar.words, letters)) }
                } @else if let Some(room) = left_of(bar, from, lane, scale) {
                    text x=(n(from - 4.0)) y=(n(middle + 4.0)) text-anchor="end" { (cut(&bar.words, (room / LETTER / 1.1) as usize)) }
                }
            }
        }
        (points(&lane.points, if lane.bars.is_empty() { middle } else { y + ROW - 5.0 }, scale))
    }
}

/// The room for the words of a short bar on its left, if the bar is one to read and there is enough.
fn left_of(bar: &Bar, from: f64, lane: &Lane, scale: &Scale) -> Option<f64> {
    let others = lane.bars.iter().filter(|other| other.from < bar.from).map(|other| scale.x(other.to));
    let room = from - others.fold(NAMES, f64::max) - 8.0;
    (bar.stuck && room > WIDTH / 4.0).then_some(room)
}

fn points(points: &[Point], y: f64, scale: &Scale) -> Markup {
    let mut sorted: Vec<_> = points.iter().map(|point| (scale.x(point.at), point)).collect();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut groups: Vec<(f64, Vec<&Point>)> = Vec::new();
    for (x, point) in sorted {
        match groups.last_mut() {
            Some((first, group)) if x - *first < NEAR => group.push(point),
            _ => groups.push((x, vec![point])),
        }
    }
    html! {
        @for (x, group) in groups {
            circle.bad[group.iter().any(|point| point.bad)] cx=(x.round()) cy=(y.round()) r=(if group.len() > 1 { "3.5" } else { "2.5" }) {
                title {
                    @for point in group.iter().take(TOLD) {
                        (seconds(point.at)) ": " (cut(&point.words, LETTERS)) "\n"
                    }
                    @if group.len() > TOLD { "and " (group.len() - TOLD) " more" }
                }
            }
        }
    }
}

/// A number with one digit after the point, and without needless ones.
fn n(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// A time for people.
pub fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2} s") } else { format!("{value:.1} s") }
}

/// The first letters of a text.
pub fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    text.chars().take(letters.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(times: &[f64]) -> Timeline {
        let points = times.iter().map(|&at| Point { at, bad: false, words: "<b>".to_owned() }).collect();
        let lane = Lane { name: "a".to_owned(), bars: Vec::new(), points };
        Timeline { end: times.iter().copied().fold(0.0, f64::max), lanes: vec![lane], marks: Vec::new() }
    }

    #[test]
    fn later_is_further_right_and_idle_time_is_shorter() {
        let times = [0.0, 0.1, 0.2, 60.0, 60.1];
        let scale = Scale::of(&timeline(&times));
        let places: Vec<_> = times.iter().map(|time| scale.x(*time)).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
        assert!(places[3] - places[2] < 20.0 * (places[1] - places[0]), "{places:?}");
        assert!(places[0] >= NAMES && places[4] <= WIDTH);
        assert_eq!(scale.gaps().count(), 1);
    }

    #[test]
    fn a_moment_without_length_is_drawn() {
        let text = draw(&timeline(&[]), "nothing").into_string() + &draw(&timeline(&[0.0]), "one").into_string();
        assert!(!text.contains("NaN") && !text.contains("inf") && text.contains("&lt;b&gt;"), "{text}");
    }
}
