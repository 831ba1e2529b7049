//! Where a volume is to be attached and detached. Pure; the order is that of upstream's attach/detach reconciler: a
//! node reads that a volume is no longer attached before it is detached, and an exclusive volume is on one node.

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// An unhealthy node that keeps a volume mounted loses it after this long (`maxWaitForUnmountDuration`).
pub const UNMOUNT_WAIT_MAX: Duration = Duration::from_secs(360);

/// A volume of a driver that attaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    pub handle: String,
    /// On one node at a time.
    pub exclusive: bool,
}

impl Volume {
    /// Its name in node statuses.
    pub fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver, self.handle)
    }

    /// The name of its VolumeAttachment for a node (`getAttachmentName`).
    pub fn attachment_name(&self, node: &str) -> String {
        let digest = Sha256::digest(format!("{}{}{node}", self.handle, self.driver));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("csi-{hex}")
    }
}

/// A VolumeAttachment of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    pub uid: String,
    pub attached: bool,
    pub deleting: bool,
}

/// What counts about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its agent leaves attaching to the controller.
    pub managed: bool,
    pub healthy: bool,
    pub out_of_service: bool,
    /// The volume is mounted there (`volumesInUse`).
    pub mounted: bool,
    /// The volume is among `volumesAttached`.
    pub reported: bool,
    /// For how long no pod has needed the volume there.
    pub unneeded: Duration,
}

impl NodeView {
    /// The volume can be taken from the node.
    pub fn lets_go(&self) -> bool {
        !self.mounted || self.out_of_service || !self.healthy && self.unneeded >= UNMOUNT_WAIT_MAX
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Attach {
        node: String,
    },
    Detach {
        node: String,
        uid: String,
    },
    /// An exclusive volume that is, or is wanted, elsewhere.
    Refuse {
        node: String,
        elsewhere: Vec<String>,
    },
    /// The node, which is not well, has to unmount it, at the latest by then.
    WaitForUnmount(Duration),
}

/// `wanted`: nodes with pods that need the volume, the pods that came first first. `nodes`: those that exist.
pub fn plan(
    volume: &Volume,
    wanted: &[String],
    attachments: &BTreeMap<String, Attachment>,
    nodes: &BTreeMap<String, NodeView>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let surplus = attachments.iter().filter(|(node, a)| !a.deleting && !wanted.contains(node));
    for (node, attachment) in surplus {
        let detach = Step::Detach { node: node.clone(), uid: attachment.uid.clone() };
        match nodes.get(node) {
            None => steps.push(detach),
            Some(view) if view.lets_go() && !view.reported => steps.push(detach),
            // Its status is taken back first; that change comes back here. So does an unmount on a node that is well,
            // or its failure.
            Some(view) if view.lets_go() || view.healthy => {}
            Some(view) => steps.push(Step::WaitForUnmount(UNMOUNT_WAIT_MAX.saturating_sub(view.unneeded))),
        }
    }
    let mut holders: Vec<&String> = attachments.keys().collect();
    for node in wanted.iter().filter(|node| nodes.get(*node).is_some_and(|n| n.managed)) {
        if attachments.contains_key(node) {
            continue;
        }
        let elsewhere: Vec<String> = holders.iter().filter(|h| **h != node).map(|h| (*h).clone()).collect();
        if volume.exclusive && !elsewhere.is_empty() {
            steps.push(Step::Refuse { node: node.clone(), elsewhere });
            continue;
        }
        holders.push(node);
        steps.push(Step::Attach { node: node.clone() });
    }
    steps
}

/// Whether a node's status has the volume among those that are attached.
pub fn is_reported(attachment: &Attachment, wanted: bool, node: &NodeView) -> bool {
    attachment.attached && !attachment.deleting && (wanted || !node.lets_go())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(exclusive: bool) -> Volume {
        Volume { name: "v".into(), driver: "d".into(), handle: "h".into(), exclusive }
    }

    const WELL: NodeView = NodeView {
        managed: true,
        healthy: true,
        out_of_service: false,
        mounted: false,
        reported: false,
        unneeded: Duration::ZERO,
    };

    fn check(exclusive: bool, wanted: &[&str], attached: &[&str], nodes: &[(&str, NodeView)], expected: &str) {
        let wanted: Vec<String> = wanted.iter().map(|n| (*n).to_owned()).collect();
        let attachment = |node: &&str| ((*node).to_owned(), Attachment { attached: true, ..Attachment::default() });
        let attachments = attached.iter().map(attachment).collect();
        let nodes = nodes.iter().map(|(name, view)| ((*name).to_owned(), *view)).collect();
        let told = |step: &Step| match step {
            Step::Attach { node } => format!("+{node}"),
            Step::Detach { node, .. } => format!("-{node}"),
            Step::Refuse { node, elsewhere } => format!("!{node} {}", elsewhere.join(",")),
            Step::WaitForUnmount(time) => format!("wait {}", time.as_secs()),
        };
        let steps: Vec<String> = plan(&volume(exclusive), &wanted, &attachments, &nodes).iter().map(told).collect();
        assert_eq!(steps.join(" "), expected);
    }

    #[test]
    fn pods_decide_where_a_volume_is() {
        check(true, &["a"], &[], &[("a", WELL)], "+a");
        check(true, &["a"], &["a"], &[("a", WELL)], "");
        check(true, &["a"], &[], &[("a", NodeView { managed: false, ..WELL })], "");
        check(true, &[], &["a"], &[("a", WELL)], "-a");
        check(true, &[], &["gone"], &[], "-gone");
    }

    #[test]
    fn an_exclusive_volume_is_on_one_node() {
        check(true, &["a", "b"], &[], &[("a", WELL), ("b", WELL)], "+a !b a");
        check(true, &["b"], &["a"], &[("a", WELL), ("b", WELL)], "-a !b a");
        check(false, &["a", "b"], &[], &[("a", WELL), ("b", WELL)], "+a +b");
    }

    #[test]
    fn a_mounted_volume_stays_until_its_node_lets_go() {
        let mounted = NodeView { mounted: true, reported: true, ..WELL };
        check(true, &[], &["a"], &[("a", mounted)], "");
        check(true, &[], &["a"], &[("a", NodeView { unneeded: UNMOUNT_WAIT_MAX, ..mounted })], "");
        // Taken out of the status first.
        check(true, &[], &["a"], &[("a", NodeView { mounted: false, ..mounted })], "");
        let sick = NodeView { healthy: false, reported: false, ..mounted };
        check(true, &[], &["a"], &[("a", NodeView { unneeded: Duration::from_secs(60), ..sick })], "wait 300");
        check(true, &[], &["a"], &[("a", NodeView { unneeded: UNMOUNT_WAIT_MAX, ..sick })], "-a");
        check(true, &[], &["a"], &[("a", NodeView { out_of_service: true, ..sick })], "-a");
    }

    #[test]
    fn what_a_node_reports() {
        let attached = Attachment { attached: true, ..Attachment::default() };
        assert!(is_reported(&attached, true, &WELL));
        assert!(!is_reported(&attached, false, &WELL));
        assert!(is_reported(&attached, false, &NodeView { mounted: true, ..WELL }));
        assert!(!is_reported(&Attachment::default(), true, &WELL));
    }

    #[test]
    fn names_are_upstreams() {
        let volume = volume(true);
        assert_eq!(volume.unique_name(), "kubernetes.io/csi/d^h");
        // sha256 of "hdn".
        let digest = "9072ed11cc1acb5fa433a877ff339b6311d013f33bddd1d0092711a8ace5b16d";
        assert_eq!(volume.attachment_name("n"), format!("csi-{digest}"));
    }
}
