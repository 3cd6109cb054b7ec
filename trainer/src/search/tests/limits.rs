//! Each limit binds, and without it the outcome is another.

use super::*;

const GOALS: [Goal; 3] = [Goal::LeastLoss, Goal::LeastBytes, Goal::Front];

fn formula() -> Formula {
    Formula::interacting(77, 24)
}

/// One evaluation at a time, so that the clock and the order to stop are exact.
fn options() -> Options {
    Options {
        at_once: 1,
        ..Options::default()
    }
}

/// A limit of the loss that some maps keep to and others do not.
fn some_loss() -> Option<f64> {
    let formula = formula();
    let sums = knapsack::SumFront::new(&formula.sites, &formula.rises, formula.budget(0.3));
    Some(formula.truth(&sums.solution(sums.len() - 1).map))
}

#[test]
fn fewer_bytes_than_the_smallest_map_are_refused_without_an_evaluation() {
    for goal in GOALS {
        let (formula, least) = (formula(), formula().bytes(&formula().sites.lowest()));
        let limits = |bytes: u64| Limits {
            max_bytes: Some(bytes),
            max_loss: some_loss(),
            ..Limits::default()
        };
        let report = run(&formula, goal, &limits(least - 1), &options(), quiet());
        let expected = Outcome::TooFewBytes {
            asked: least - 1,
            least,
            map: formula.sites.lowest(),
        };
        assert_eq!((report.outcome, report.evaluations, formula.calls()), (expected, 0, 0));
        let random = run_random(&formula, goal, &limits(least - 1), 1);
        assert!(matches!(random.outcome, Outcome::TooFewBytes { .. }) && formula.calls() == 0);
        // With a byte more there is one map, and it is found.
        let report = run(&formula, goal, &limits(least), &options(), quiet());
        assert_eq!(
            report.front.points().len(),
            usize::from(goal != Goal::Front),
            "{goal:?}"
        );
        assert!(formula.calls() > 0 && formula.largest() == least);
    }
}

#[test]
fn no_map_is_larger_than_allowed_and_without_the_limit_one_is() {
    for goal in GOALS {
        for part in [0.05, 0.2, 0.8] {
            let limits = |max_bytes: Option<u64>| Limits {
                max_bytes,
                max_loss: some_loss().filter(|_| goal == Goal::LeastBytes),
                max_evaluations: Some(300),
                ..Limits::default()
            };
            let (formula, budget) = (formula(), formula().budget(part));
            let report = run(&formula, goal, &limits(Some(budget)), &options(), quiet());
            assert!(formula.largest() <= budget && formula.largest() > budget / 2);
            assert!(report.front.points().iter().all(|point| point.bytes <= budget));
            let formula = formula.anew();
            let random = run_random(&formula, goal, &limits(Some(budget)), 3);
            assert!(formula.largest() <= budget && random.evaluations > 0);
            let formula = formula.anew();
            let free = run(&formula, goal, &limits(None), &options(), quiet());
            assert!(formula.largest() > budget && free.front != report.front);
        }
    }
}

#[test]
fn no_evaluation_comes_after_the_last_and_without_the_limit_there_are_more() {
    for goal in GOALS {
        let limits = |max_evaluations: Option<u64>| Limits {
            max_loss: some_loss(),
            max_evaluations,
            ..Limits::default()
        };
        let formula = formula();
        let free = run(&formula, goal, &limits(None), &options(), quiet());
        assert_eq!((free.end, free.evaluations), (End::Done, formula.calls()));
        for most in [
            0,
            1,
            2,
            3,
            9,
            10,
            47,
            200,
            free.evaluations - 1,
            free.evaluations,
            free.evaluations + 1,
        ] {
            for at_once in [1, 7] {
                let formula = self::formula();
                let options = Options { at_once, ..options() };
                let report = run(&formula, goal, &limits(Some(most)), &options, quiet());
                let end = if most < free.evaluations {
                    End::Evaluations
                } else {
                    End::Done
                };
                assert_eq!(
                    (formula.calls(), report.evaluations),
                    (most.min(free.evaluations), formula.calls())
                );
                assert_eq!(report.end, end, "{goal:?} {most}");
                assert_eq!(report.outcome == Outcome::Nothing, most == 0);
                match most < 200 {
                    true => assert!(report.front != free.front),
                    false => assert!(most < free.evaluations || report == free),
                }
            }
        }
    }
}

#[test]
fn no_evaluation_begins_after_the_deadline() {
    for seconds in [0, 1, 50, 130] {
        let formula = formula();
        let limits = Limits {
            deadline: Some(Duration::from_secs(seconds)),
            ..Limits::default()
        };
        let report = run(&formula, Goal::LeastLoss, &limits, &options(), quiet());
        // The clock goes on by a second for each evaluation that asks it.
        assert_eq!(
            (formula.calls(), report.evaluations, report.end),
            (seconds, seconds, End::Deadline)
        );
    }
    let report = run(&formula(), Goal::LeastLoss, &Limits::default(), &options(), quiet());
    assert!(report.evaluations > 130 && report.end == End::Done);
}

#[test]
fn a_search_that_is_asked_to_stop_begins_no_evaluation() {
    for calls in [0, 1, 2, 40] {
        let formula = formula();
        let interrupted = || formula.calls() >= calls;
        let world = World {
            interrupted: &interrupted,
            journal: None,
        };
        let report = run(&formula, Goal::Front, &Limits::default(), &options(), world);
        assert_eq!(
            (formula.calls(), report.evaluations, report.end),
            (calls, calls, End::Interrupted)
        );
        assert_eq!(report.outcome == Outcome::Nothing, calls == 0);
    }
}

#[test]
fn a_loss_that_no_map_has_is_told_with_the_nearest() {
    for goal in GOALS {
        let small = || Formula::interacting(5, 6);
        let truth = small().true_front();
        let best = truth.best().unwrap();
        let limits = |loss: f64| Limits {
            max_loss: Some(loss),
            ..Limits::default()
        };
        let report = run(&small(), goal, &limits(best.loss - 0.001), &options(), quiet());
        let expected = Outcome::LossNotReached {
            asked: best.loss - 0.001,
            nearest: report.front.best().unwrap_or(best).clone(),
        };
        assert_eq!((report.outcome, report.end), (expected, End::Done), "{goal:?}");
        // One that the best map has is kept to.
        let limit = best.loss + 0.05;
        let report = run(&small(), goal, &limits(limit), &options(), quiet());
        assert!(found(&report).loss <= limit, "{goal:?}");
        if goal == Goal::Front {
            assert!(report.front.points().iter().all(|point| point.loss <= limit));
            let free = run(&small(), goal, &Limits::default(), &options(), quiet());
            assert!(free.front.points().iter().any(|point| point.loss > limit));
        }
    }
}

#[test]
fn fewest_bytes_keep_to_a_limit_of_the_loss_and_a_looser_one_gives_fewer() {
    let of = |loss: f64| {
        let limits = Limits {
            max_loss: Some(loss),
            ..Limits::default()
        };
        let report = run(&formula(), Goal::LeastBytes, &limits, &options(), quiet());
        assert!(found(&report).loss <= loss);
        found(&report).bytes
    };
    let loss = some_loss().unwrap();
    assert!(of(loss + 0.3) < of(loss) && of(loss) < of(loss - 0.1));
}

#[test]
fn an_evaluation_that_fails_ends_the_search_with_its_error() {
    for fails in [0, 1, 30] {
        let formula = Formula {
            fails: Some(fails),
            ..formula()
        };
        let outcome = attempt(&formula, Goal::LeastLoss, &Limits::default(), &options(), quiet());
        assert_eq!(outcome.unwrap_err().to_string(), "no memory");
        assert_eq!(formula.calls(), fails + 1);
    }
}

#[test]
fn losses_that_are_no_numbers_come_to_nothing() {
    let broken = Formula {
        broken: true,
        ..formula()
    };
    let limits = Limits {
        max_evaluations: Some(90),
        ..Limits::default()
    };
    let report = run(&broken, Goal::LeastLoss, &limits, &options(), quiet());
    assert_eq!((report.outcome, report.evaluations), (Outcome::Nothing, 90));
}

#[test]
fn a_model_without_choices_has_one_map() {
    for n in [0, 1] {
        let mut formula = Formula::additive(3, n);
        let first = |site: &Site| Site {
            choices: vec![site.choices[0]],
            ..site.clone()
        };
        formula.sites = Sites::new(formula.sites.all().iter().map(first).collect(), 10).unwrap();
        formula.rises = Sensitivity::new(vec![vec![0.5]; n], &formula.sites).unwrap();
        let report = run(&formula, Goal::Front, &Limits::default(), &options(), quiet());
        assert_eq!((found(&report).map.choices().len(), report.evaluations), (n, 1));
        assert_eq!(
            run_random(&formula.anew(), Goal::LeastLoss, &Limits::default(), 1).evaluations,
            1
        );
    }
}

#[test]
fn inputs_that_make_no_sense_are_named() {
    let refused = |formula: &Formula, goal: Goal, limits: Limits, options: Options| {
        let error = attempt(formula, goal, &limits, &options, quiet()).unwrap_err();
        assert_eq!(formula.calls(), 0);
        error.to_string()
    };
    let limits = Limits::default();
    let error = refused(&formula(), Goal::LeastBytes, limits, options());
    assert_eq!(error, "least bytes are sought under a limit of the loss; give one");
    let nan = Limits {
        max_loss: Some(f64::NAN),
        ..limits
    };
    assert!(refused(&formula(), Goal::LeastLoss, nan, options()).contains("NaN"));
    for stages in [vec![], vec![0, 4], vec![4, 4], vec![5, 4]] {
        let formula = Formula { stages, ..formula() };
        assert!(refused(&formula, Goal::Front, limits, options()).contains("token counts"));
    }
    let none = Options {
        offspring: 0,
        ..options()
    };
    assert_eq!(
        refused(&formula(), Goal::Front, limits, none),
        "offspring is 0; give at least 1"
    );

    let choice = |width| Choice { width, bytes: 1 };
    let site = |choices| Site {
        name: "up 3".into(),
        choices,
    };
    let sites = |choices| Sites::new(vec![site(choices)], 0).map(|sites| sites.len());
    let error = |choices| sites(choices).unwrap_err().to_string();
    assert_eq!(error(vec![]), "up 3: expected 1 to 10 widths to choose from, found 0");
    assert_eq!(error(vec![choice(Width::Int4); 2]), "up 3: int4 is listed twice");
    let large = Choice {
        width: Width::F16,
        bytes: u64::MAX,
    };
    assert_eq!(Sites::new(vec![site(vec![large])], 1), Err(SetupError::TooLarge));
    let two = Sites::new(vec![site(vec![choice(Width::F16), choice(Width::Int8)])], 0).unwrap();
    let table = |table| Sensitivity::new(table, &two).map(|_| ()).unwrap_err();
    assert_eq!(table(vec![]), SetupError::Rows { sites: 1, found: 0 });
    assert!(matches!(
        table(vec![vec![0.0]]),
        SetupError::Row {
            choices: 2,
            found: 1,
            ..
        }
    ));
    assert!(matches!(table(vec![vec![0.0, f64::NAN]]), SetupError::Rise { .. }));
    assert!(matches!(
        table(vec![vec![0.0, f64::NEG_INFINITY]]),
        SetupError::Rise { .. }
    ));
}

#[test]
fn a_uniform_map_takes_the_next_width_where_a_site_has_not_the_very_one() {
    let site = |widths: &[Width]| Site {
        name: String::new(),
        choices: widths.iter().map(|&width| Choice { width, bytes: 0 }).collect(),
    };
    let sites = vec![
        site(&Width::ALL),
        site(&[Width::Binary, Width::F16]),
        site(&[Width::Ternary, Width::Int8]),
    ];
    let sites = Sites::new(sites, 0).unwrap();
    let widths = |width| {
        let map = sites.uniform(width);
        (0..3).map(|site| sites.width(&map, site).name()).collect::<Vec<_>>()
    };
    assert_eq!(widths(Width::F16), ["f16", "f16", "int8"]);
    assert_eq!(widths(Width::Int4), ["int4", "f16", "int8"]);
    assert_eq!(widths(Width::Binary), ["binary", "binary", "ternary"]);
}
