//! Who reads and writes what: the declarations of controllers, printed.

use std::fmt::Write;
use std::sync::Arc;

use super::{Controller, Inputs};

/// What one controller declares.
struct Declared {
    name: &'static str,
    /// With whether its keys come from it.
    reads: Vec<(String, bool)>,
    /// With whether others write it, too.
    writes: Vec<(String, bool)>,
}

fn declared(controllers: &[Arc<dyn Controller>]) -> Vec<Declared> {
    let of = |controller: &Arc<dyn Controller>| {
        let mut inputs = Inputs::default();
        controller.inputs(&mut inputs);
        let writes = controller.outputs().iter().map(|o| (api::status::qualified(o.group, o.resource), o.shared));
        Declared { name: controller.name(), reads: reads(&inputs), writes: writes.collect() }
    };
    controllers.iter().map(of).collect()
}

/// Each resource once, however many reasons there are to look at it.
fn reads(inputs: &Inputs) -> Vec<(String, bool)> {
    let mut reads: Vec<(String, bool)> = Vec::new();
    for input in &inputs.inputs {
        match reads.iter_mut().find(|(resource, _)| *resource == input.resource) {
            Some((_, primary)) => *primary |= input.primary,
            None => reads.push((input.resource.clone(), input.primary)),
        }
    }
    reads
}

/// As text: three lines per controller. A star marks what its keys name.
pub fn text(controllers: &[Arc<dyn Controller>]) -> String {
    let list = |resources: &[(String, bool)], mark: &str| {
        let names: Vec<String> = resources
            .iter()
            .map(|(name, marked)| if *marked { format!("{name}{mark}") } else { name.clone() })
            .collect();
        names.join(", ")
    };
    let mut out = String::new();
    for controller in declared(controllers) {
        let (reads, writes) = (list(&controller.reads, "*"), list(&controller.writes, " (shared)"));
        line(&mut out, &format!("{}\n  reads  {reads}\n  writes {writes}", controller.name));
    }
    out
}

/// In Graphviz' language: resources are boxes, controllers ellipses; a dashed edge is a write that others make, too.
pub fn dot(controllers: &[Arc<dyn Controller>]) -> String {
    let mut out = "digraph controllers {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for controller in declared(controllers) {
        let name = controller.name;
        line(&mut out, &format!("  {name:?} [shape=ellipse];"));
        for (resource, primary) in controller.reads {
            let style = if primary { " [penwidth=2]" } else { "" };
            line(&mut out, &format!("  {resource:?} -> {name:?}{style};"));
        }
        for (resource, shared) in controller.writes {
            let style = if shared { " [style=dashed]" } else { "" };
            line(&mut out, &format!("  {name:?} -> {resource:?}{style};"));
        }
    }
    line(&mut out, "}");
    out
}

fn line(out: &mut String, line: &str) {
    writeln!(out, "{line}").expect("a String takes every write");
}
