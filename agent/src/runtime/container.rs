//! Container records in containerd. Our labels on a record are the agent's only memory of a container.

use std::collections::HashMap;

use containerd_client::services::v1::{
    Container as Record, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest, ListContainersRequest,
    UpdateContainerRequest, container::Runtime as RecordRuntime, containers_client::ContainersClient,
};
use prost_types::{Any, FieldMask};

use super::{Error, Result, Runtime, answered, gone_is_fine, options};

/// How containerd names the type of an OCI runtime spec in JSON.
const SPEC_TYPE_URL: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub id: String,
    pub image: String,
    pub labels: HashMap<String, String>,
    pub snapshot_key: String,
    /// The OCI spec as JSON.
    pub spec: Vec<u8>,
}

pub struct NewContainer {
    pub id: String,
    pub image: String,
    pub labels: HashMap<String, String>,
    pub spec: oci_spec::runtime::Spec,
}

impl Runtime {
    fn containers(&self) -> ContainersClient<tonic::transport::Channel> {
        ContainersClient::new(self.channel())
    }

    /// The snapshot of the same id must exist.
    pub async fn create_container(&self, new: NewContainer) -> Result<()> {
        let spec = serde_json::to_vec(&new.spec).map_err(|source| Error::Json {
            what: "spec of container",
            digest: new.id.clone(),
            source,
        })?;
        let record = Record {
            id: new.id.clone(),
            labels: new.labels,
            image: new.image,
            runtime: Some(RecordRuntime {
                name: options::SHIM.to_owned(),
                options: Some(options::encode(self.oci_runtime())),
            }),
            spec: Some(Any { type_url: SPEC_TYPE_URL.to_owned(), value: spec }),
            snapshotter: self.snapshotter().to_owned(),
            snapshot_key: new.id.clone(),
            ..Record::default()
        };
        let request = self.request(CreateContainerRequest { container: Some(record) });
        answered(self.containers().create(request).await, "create container", &new.id)?;
        Ok(())
    }

    /// Containers whose labels include all given pairs.
    pub async fn list_containers(&self, labels: &[(&str, &str)]) -> Result<Vec<Container>> {
        let filter = labels.iter().map(|(key, value)| format!("labels.{key:?}=={value:?}")).collect::<Vec<_>>();
        let filters = if filter.is_empty() { Vec::new() } else { vec![filter.join(",")] };
        let result = self.containers().list(self.request(ListContainersRequest { filters })).await;
        let listed = answered(result, "list containers", self.namespace())?;
        Ok(listed.containers.into_iter().map(Container::from).collect())
    }

    pub async fn container(&self, id: &str) -> Result<Container> {
        let result = self.containers().get(self.request(GetContainerRequest { id: id.to_owned() })).await;
        let record = answered(result, "get container", id)?.container;
        record.map(Container::from).ok_or_else(|| Error::Answer {
            call: "get container",
            object: id.to_owned(),
            field: "container",
        })
    }

    /// Adds or replaces the given labels and leaves the others.
    pub async fn label_container(&self, id: &str, labels: HashMap<String, String>) -> Result<()> {
        let paths = labels.keys().map(|key| format!("labels.{key}")).collect();
        let request = UpdateContainerRequest {
            container: Some(Record { id: id.to_owned(), labels, ..Record::default() }),
            update_mask: Some(FieldMask { paths }),
        };
        answered(self.containers().update(self.request(request)).await, "label container", id)?;
        Ok(())
    }

    /// Deletes the record only; the task must be gone. Success when there is none.
    pub async fn delete_container_record(&self, id: &str) -> Result<()> {
        let result = self.containers().delete(self.request(DeleteContainerRequest { id: id.to_owned() })).await;
        gone_is_fine(answered(result, "delete container", id))
    }

    /// Kills and deletes the task, the record and the snapshot. Safe to repeat.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        self.kill_and_delete_task(id).await?;
        self.delete_container_record(id).await?;
        self.remove_snapshot(id).await
    }
}

impl From<Record> for Container {
    fn from(record: Record) -> Self {
        Self {
            id: record.id,
            image: record.image,
            labels: record.labels,
            snapshot_key: record.snapshot_key,
            spec: record.spec.map(|any| any.value).unwrap_or_default(),
        }
    }
}
