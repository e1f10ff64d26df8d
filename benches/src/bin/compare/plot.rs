//! A bar for each peer, as high as the median, with a whisker from the lowest to the highest figure.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::{Described, Results};
use crate::stats::{Spread, spread};

const SIZE: (u32, u32) = (820, 420);
const FONT: &str = "sans-serif";
/// Colours that differ for colour-blind readers too: tapswitches, and all others.
const OURS: RGBColor = RGBColor(0, 114, 178);
const OTHERS: RGBColor = RGBColor(150, 150, 150);
/// Half the width of a bar, of the 1.0 that each peer has.
const HALF_BAR: f64 = 0.32;
const HALF_WHISKER: f64 = 0.08;

/// Room above the highest whisker, for the figure that stands there.
const HEADROOM: f64 = 1.12;

struct Bar<'a> {
    name: &'a str,
    ours: bool,
    values: Spread,
}

/// Writes `TEST.svg` for each test into `out`.
pub(crate) fn all(results: &Results, out: &Path) -> Result<(), String> {
    for described in &results.tests {
        let bars: Vec<Bar<'_>> = results
            .peers
            .iter()
            .filter_map(|peer| {
                let values = spread(results.figures(described.test, &peer.name).iter().map(|figures| figures.value))?;
                Some(Bar { name: &peer.name, ours: peer.what.starts_with("tapswitch"), values })
            })
            .collect();
        if bars.is_empty() {
            continue;
        }
        let path = out.join(format!("{}.svg", described.test.name()));
        let mut svg = String::new();
        let drawn = draw(&SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(), results, described, &bars);
        drawn.map_err(|error| format!("cannot draw {}: {error}", path.display()))?;
        std::fs::write(&path, svg).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(
    root: &Area<'_>,
    results: &Results,
    described: &Described,
    bars: &[Bar<'_>],
) -> Result<(), Box<dyn std::error::Error>> {
    let settings = &results.settings;
    let top = bars.iter().map(|bar| bar.values.high).fold(0.0, f64::max).max(1e-3) * HEADROOM;
    root.fill(&WHITE)?;
    let subtitle = format!(
        "median and range of {} round(s) of {} s, {}, {} CPUs, {}",
        settings.rounds, settings.seconds, settings.congestion_control, results.facts.cpus, results.facts.kernel
    );
    let area =
        root.titled(&described.title, (FONT, 26))?.titled(&subtitle, (FONT, 17).into_font().color(&BLACK.mix(0.6)))?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.5..bars.len() as f64 - 0.5, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .y_desc(&described.unit)
        .y_label_style((FONT, 17))
        .axis_desc_style((FONT, 18))
        .draw()?;
    let label = (FONT, 18).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
    let figure = (FONT, 17).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Bottom));
    for (at, bar) in bars.iter().enumerate() {
        let (x, Spread { median, low, high }) = (at as f64, bar.values);
        let colour = if bar.ours { OURS } else { OTHERS };
        chart.draw_series([Rectangle::new([(x - HALF_BAR, 0.0), (x + HALF_BAR, median)], colour.filled())])?;
        let whisker = [
            vec![(x, low), (x, high)],
            vec![(x - HALF_WHISKER, low), (x + HALF_WHISKER, low)],
            vec![(x - HALF_WHISKER, high), (x + HALF_WHISKER, high)],
        ];
        chart.draw_series(whisker.map(|line| PathElement::new(line, BLACK.stroke_width(2))))?;
        chart.draw_series([Text::new(crate::table::number(median), (x, high + top * 0.015), figure.clone())])?;
        let below = chart.backend_coord(&(x, 0.0));
        // On the whole drawing, for that is what these coordinates are of.
        root.draw(&Text::new(bar.name.to_owned(), (below.0, below.1 + 8), label.clone()))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::example;

    #[test]
    fn a_plot_names_its_peers_title_and_unit() {
        let results = example();
        let dir = std::env::temp_dir().join(format!("compare-plot-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        all(&results, &dir).expect("a plot");
        let svg = std::fs::read_to_string(dir.join("tcp1.svg")).expect("the plot");
        std::fs::remove_dir_all(&dir).expect("tidied up");
        for word in ["tapswitch", "bridge", "TCP, 1 stream", "Gbit/s", "42.0"] {
            assert!(svg.contains(word), "{word}");
        }
    }
}
