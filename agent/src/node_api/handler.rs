//! One request to its answer.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::{self, Answer, Refusal},
    attach, exec, logs, metrics, pods, port_forward,
    query::Query,
    route::{Route, Target},
    stats,
};
use crate::pod::{ContainerView, PodView, Shared};

/// What answers requests; sessions it starts run among `tasks` and end with `close`.
#[derive(Clone)]
pub struct Handler {
    pub shared: Arc<Shared>,
    pub rates: stats::Rates,
    tasks: TaskTracker,
    close: CancellationToken,
}

impl Handler {
    pub fn new(shared: Arc<Shared>, tasks: TaskTracker, close: CancellationToken) -> Self {
        Self { shared, rates: stats::Rates::default(), tasks, close }
    }

    pub async fn call(&self, request: Request<Incoming>) -> Answer {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let result = match Route::of(request.method(), request.uri().path()) {
            Route::Healthz => Ok(answer::text(StatusCode::OK, "ok")),
            Route::Pods => Ok(pods::all(&self.shared.views)),
            Route::RunningPods => Ok(pods::running(&self.shared.views)),
            Route::StatsSummary => Ok(stats::summary(self)),
            Route::Metrics => Ok(metrics::agent(self)),
            Route::ResourceMetrics => Ok(metrics::resource(self)),
            Route::Logs(target) => logs::answer(self, &target, &query).await,
            Route::Exec(target) => exec::answer(self, request, &target, &query),
            Route::Attach(target) => attach::answer(self, request, &target, &query),
            Route::PortForward { namespace, pod, uid } => {
                port_forward::answer(self, request, &query, &namespace, &pod, uid.as_deref())
            }
            Route::NotFound => Err(Refusal::not_found("404: Page Not Found")),
            Route::MethodNotAllowed => Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed")),
        };
        result.unwrap_or_else(Refusal::answer)
    }

    /// Runs a session until it ends or the server stops; a session that is dropped takes its processes with it.
    pub fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let close = self.close.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = session => {}
                () = close.cancelled() => {}
            }
        });
    }

    pub fn pod(&self, target: &Target) -> Result<Arc<PodView>, Refusal> {
        let view = self.shared.views.find(&target.namespace, &target.pod, None);
        view.ok_or_else(|| Refusal::not_found("pod does not exist"))
    }

    /// A running container of a pod, in the words of the kubelet's `GetExec` where there is none.
    pub fn running(&self, target: &Target) -> Result<(Arc<PodView>, ContainerView), Refusal> {
        let pod = self.pod(target)?;
        let same = target.uid.as_ref().is_none_or(|uid| *uid == pod.id.uid);
        let container = pod.containers.get(&target.container).filter(|container| same && container.pid.is_some());
        let container = container.cloned();
        match container {
            Some(container) => Ok((pod, container)),
            None => Err(Refusal::internal(format!("container not found ({:?})", target.container))),
        }
    }
}
