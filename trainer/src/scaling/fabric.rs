//! How long collectives take.
//!
//! ```text
//! S bytes among n GPUs, g in a node, m = n/g nodes      volume of a rank               between nodes, a network card for each GPU
//! all-gather, reduce-scatter                            (n − 1)/n · S                  (m − 1)/m · S/g
//! all-reduce                                            twice that                     twice that
//! time = max(floor, start + hops + max(volume / bandwidth, volume between / bandwidth between))
//! hops = (min(n, g) − 2) · hop inside + (m − 1 of a gather, 2·log2 m of an all-reduce) · hop between
//! ```
//! The two bandwidths work at the same time, because NCCL sends pieces on while others arrive. A gather goes from node to node in a ring, an all-reduce in a tree.
//!
//! **Measured**, on two H200 of a host (18 NVLink links each, NCCL 2.28): floors, starts and bandwidths inside a node reproduce the times of 1 to 512 MiB within 8 percent (the test has them).
//! **Assumed**: that eight GPUs behind switches have the bandwidth of two; hops of 1.5 µs inside a node and 6 µs between; 40 GB/s a GPU between nodes (a card of 400 Gbit/s at four fifths).

/// Seconds of a collective inside a node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// The least that any takes, seconds.
    pub floor: f64,
    /// Before the first byte, seconds.
    pub start: f64,
    /// Of the volume that a rank sends, bytes a second.
    pub bandwidth: f64,
}

/// What connects GPUs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fabric {
    /// GPUs of a node.
    pub per_node: usize,
    /// All-reduce inside a node.
    pub reduce: Link,
    /// All-gather and reduce-scatter inside a node.
    pub gather: Link,
    /// More for each GPU of a node beyond two, seconds.
    pub hop_inside: f64,
    /// For each step from node to node, seconds.
    pub hop_between: f64,
    /// Between nodes, of each GPU, bytes a second.
    pub between: f64,
}

impl Fabric {
    /// Nodes of H200: see above what is measured and what assumed.
    pub const fn h200(per_node: usize) -> Self {
        Fabric {
            per_node,
            reduce: Link {
                floor: 37.5e-6,
                start: 28e-6,
                bandwidth: 315e9,
            },
            gather: Link {
                floor: 36e-6,
                start: 28e-6,
                bandwidth: 262e9,
            },
            hop_inside: 1.5e-6,
            hop_between: 6e-6,
            between: 40e9,
        }
    }

    /// Seconds of an all-reduce of `bytes` on each of `gpus`.
    pub fn all_reduce(&self, bytes: f64, gpus: usize) -> f64 {
        let nodes = gpus.div_ceil(self.per_node.max(1));
        self.seconds(&self.reduce, 2.0 * bytes, gpus, 2.0 * (nodes as f64).log2().ceil())
    }

    /// Seconds of an all-gather that leaves `bytes` on each of `gpus`.
    pub fn all_gather(&self, bytes: f64, gpus: usize) -> f64 {
        let nodes = gpus.div_ceil(self.per_node.max(1));
        self.seconds(&self.gather, bytes, gpus, nodes as f64 - 1.0)
    }

    /// Seconds of a reduce-scatter of `bytes` on each of `gpus`.
    pub fn reduce_scatter(&self, bytes: f64, gpus: usize) -> f64 {
        self.all_gather(bytes, gpus)
    }

    fn seconds(&self, link: &Link, bytes: f64, gpus: usize, hops: f64) -> f64 {
        if gpus < 2 || bytes == 0.0 {
            return 0.0;
        }
        let inside = gpus.min(self.per_node.max(1));
        let nodes = gpus.div_ceil(inside) as f64;
        let others = |n: f64| (n - 1.0) / n;
        let within = match inside {
            1 => 0.0,
            _ => others(gpus as f64) * bytes / link.bandwidth,
        };
        let between = others(nodes) * bytes / inside as f64 / self.between;
        let hops = self.hop_inside * inside.saturating_sub(2) as f64 + self.hop_between * hops;
        link.floor.max(link.start + hops + within.max(between))
    }
}
