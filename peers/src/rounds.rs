//! Alternating rounds: every contender is measured once per round, in an order that turns with each round.

/// One thing to measure: a name, and what yields one figure per round.
pub struct Contender<'a> {
    name: String,
    measure: Box<dyn FnMut() -> Result<f64, String> + 'a>,
}

impl<'a> Contender<'a> {
    /// A contender measured by `measure`, which says why if it cannot.
    pub fn new(name: &str, measure: impl FnMut() -> Result<f64, String> + 'a) -> Self {
        Contender { name: name.into(), measure: Box::new(measure) }
    }
}

/// The figures of one contender, a figure per round; or why there are none.
#[derive(Debug, Clone)]
pub struct Series {
    /// The contender's name.
    pub name: String,
    /// A figure per round, in the order of the rounds.
    pub rounds: Result<Vec<f64>, String>,
}

/// Median, least and greatest of some figures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Median.
    pub median: f64,
    /// Least.
    pub min: f64,
    /// Greatest.
    pub max: f64,
}

impl Summary {
    /// `None` of no figures.
    pub fn of(figures: &[f64]) -> Option<Summary> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Summary { median: (low + high) / 2.0, min, max })
    }
}

/// Measures all contenders `rounds` times. One that fails is reported on stderr and left out from then on.
pub fn alternate(rounds: usize, mut contenders: Vec<Contender<'_>>) -> Vec<Series> {
    let mut series: Vec<Series> =
        contenders.iter().map(|c| Series { name: c.name.clone(), rounds: Ok(Vec::new()) }).collect();
    for round in 0..rounds {
        for turn in 0..contenders.len() {
            let at = (turn + round) % contenders.len();
            let Ok(figures) = &mut series[at].rounds else { continue };
            match (contenders[at].measure)() {
                Ok(figure) => figures.push(figure),
                Err(reason) => {
                    eprintln!("skipped: {}: {reason}", series[at].name);
                    series[at].rounds = Err(reason);
                }
            }
        }
    }
    series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_even_and_odd() {
        assert_eq!(Summary::of(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, min: 1.0, max: 3.0 }));
        assert_eq!(Summary::of(&[4.0, 1.0]), Some(Summary { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn a_failing_contender_is_left_out_and_the_others_go_on() {
        let mut tries = 0;
        let series = alternate(
            3,
            vec![
                Contender::new("bad", || {
                    tries += 1;
                    Err("not installed".into())
                }),
                Contender::new("good", || Ok(1.0)),
            ],
        );
        assert_eq!(series[0].rounds.as_ref().unwrap_err(), "not installed");
        assert_eq!(series[1].rounds.as_ref().unwrap().len(), 3);
        assert_eq!(tries, 1);
    }
}
