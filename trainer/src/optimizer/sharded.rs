//! Moments divided among ranks: ZeRO-1. Each parameter has an owner, which has its moments, updates it, and sends it to the others.

use onebit_engine::Tensor;

use super::{Moments, Optimizer};
use crate::Result;
use crate::parallel::{World, in_buckets, owners};

impl Optimizer {
    /// Keeps the share of rank `world.rank()`: moments that another rank owns are dropped here, or never made.
    pub(crate) fn divide(&mut self, world: &World) {
        let lengths: Vec<usize> = self.slots.iter().map(|slot| slot.shape.elements()).collect();
        self.rank = world.rank();
        for (slot, owner) in self.slots.iter_mut().zip(owners(&lengths, world.size())) {
            slot.owner = Some(owner);
        }
        for (slot, moments) in self.slots.iter().zip(&mut self.moments) {
            if slot.owner != Some(self.rank) {
                *moments = Moments::Elsewhere;
            }
        }
    }

    /// Whether each rank has a share only.
    fn is_divided(&self) -> bool {
        self.slots.iter().any(|slot| slot.owner.is_some())
    }

    /// Sends the parameters that their owners have updated to all ranks. Nothing happens where moments are not divided.
    ///
    /// # Errors
    /// What the link or the library says.
    pub(crate) fn share_parameters(&self, world: &World, parameters: &mut [Tensor]) -> Result<()> {
        if !self.is_divided() {
            return Ok(());
        }
        for root in 0..world.size() {
            let mut owned = Vec::new();
            for (slot, parameter) in self.slots.iter().zip(parameters.iter_mut()) {
                if slot.owner == Some(root) {
                    owned.push(parameter.f32_mut()?);
                }
            }
            in_buckets(&mut owned, |bucket| {
                world.spread(bytemuck::cast_slice_mut(bucket), root)
            })?;
        }
        Ok(())
    }

    /// All moments on rank 0, for a checkpoint, and nothing on the others; every rank calls it. Where moments are not divided, rank 0's are all.
    ///
    /// # Errors
    /// What the link or the library says.
    pub(crate) fn whole(&mut self, world: &World) -> Result<Option<Optimizer>> {
        if !self.is_divided() {
            return Ok(world.is_first().then(|| self.clone()));
        }
        self.moments_mut();
        let mut all = Vec::new();
        for (slot, moments) in self.slots.iter().zip(&self.moments) {
            let owner = slot.owner.unwrap_or(0);
            if owner == 0 {
                all.extend(world.is_first().then(|| moments.clone()));
                continue;
            }
            let mut whole = if owner == self.rank {
                moments.clone()
            } else {
                slot.zeros()
            };
            for bytes in whole.bytes_mut()? {
                world.spread(bytes, owner)?;
            }
            all.extend(world.is_first().then_some(whole));
        }
        Ok(world.is_first().then(|| self.undivided_with(all)))
    }

    /// Moments as rank 0 has them, on all ranks, each of which keeps its share.
    ///
    /// # Errors
    /// What the link or the library says.
    pub(crate) fn receive(&mut self, world: &World, whole: Option<Optimizer>) -> Result<()> {
        let mut whole = whole.unwrap_or_else(|| self.undivided());
        for moments in whole.moments_mut() {
            for bytes in moments.bytes_mut()? {
                world.spread(bytes, 0)?;
            }
        }
        self.moments = whole.moments;
        if self.is_divided() {
            self.divide(world);
        }
        Ok(())
    }

    /// The optimiser of one rank, with zeros.
    pub(crate) fn undivided(&self) -> Optimizer {
        self.undivided_with(Vec::new())
    }

    fn undivided_with(&self, moments: Vec<Moments>) -> Optimizer {
        let mut slots = self.slots.clone();
        slots.iter_mut().for_each(|slot| slot.owner = None);
        Optimizer {
            slots,
            rank: 0,
            moments,
        }
    }
}
