//! The API: interim.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::admin::Admin;
use crate::hub::Hub;
use crate::transport::{HttpArrival, Listener};

/// What handlers need.
#[derive(Clone, Debug)]
pub struct Api {
    _hub: Arc<Hub>,
    admin: Arc<Admin>,
}

impl Api {
    /// `split` says that there is a second listener for what is internal.
    pub fn new(hub: Arc<Hub>, admin: Arc<Admin>, _split: bool) -> Self {
        Self { _hub: hub, admin }
    }

    /// Administration.
    pub fn admin(&self) -> &Arc<Admin> {
        &self.admin
    }
}

/// Serves until dropped.
pub async fn serve(_api: Api, mut arrivals: mpsc::Receiver<HttpArrival>, _internal: Option<Listener>) {
    while let Some(arrival) = arrivals.recv().await {
        drop(arrival);
    }
    std::future::pending::<()>().await;
}
