//! Reads what an explanation looks for, and explains again, until nothing is missing.

use api_client::{Client, ListParams, ObjectKey, PartialObject, discovery};
use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::chain::Explanation;
use crate::target::{Kind, Kinds, Target};
use crate::world::{Answer, Query, World};

/// How many times one look may lead to another. A chain of causes is far shorter.
const ROUNDS_MAX: usize = 16;
/// Reads that are under way at a time.
const READS_AT_ONCE: usize = 16;
/// Objects of one list that are read. A person who asks about one object shall not have to hold a whole large cluster
/// in memory; what rests on the list is then told by the words of others, and that it was not read.
const OBJECTS_MAX: usize = 20_000;
/// Objects per page of a list.
const PAGE_OBJECTS: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("ask the API server what it serves")]
    Discovery(#[source] api_client::Error),
    /// A bug of this crate: it always finds something new to look at.
    #[error("after {ROUNDS_MAX} rounds there is still something to read: {0:?}")]
    Endless(Vec<Query>),
}

/// Asks why an object is as it is.
pub async fn ask(client: &Client, target: &Target, now: Timestamp) -> Result<Explanation, Error> {
    let kinds = Kinds::of(&discovery::read(client).await.map_err(Error::Discovery)?);
    let mut world = World::new(kinds);
    for _ in 0..ROUNDS_MAX {
        let explanation = crate::explain(&world, target, now);
        let wanted = world.wanted();
        if wanted.is_empty() {
            return Ok(explanation);
        }
        let reads = wanted.into_iter().map(|query| async move {
            let answer = read(client, &query).await;
            (query, answer)
        });
        let answers: Vec<(Query, Answer)> = stream::iter(reads).buffer_unordered(READS_AT_ONCE).collect().await;
        answers.into_iter().for_each(|(query, answer)| world.learn(query, answer));
    }
    crate::explain(&world, target, now);
    Err(Error::Endless(world.wanted()))
}

async fn read(client: &Client, query: &Query) -> Answer {
    let answer = match query {
        Query::Get { kind, namespace, name } => get(client, kind, &ObjectKey::new(namespace, name)).await,
        Query::List { kind, namespace, labels, fields } => list(client, kind, namespace, labels, fields).await,
        Query::Log { namespace, pod, container, previous } => {
            log(client, namespace, pod, container, *previous).await.map(Answer::Text)
        }
    };
    answer.unwrap_or_else(|error| Answer::Refused(error.to_string()))
}

async fn get(client: &Client, kind: &Kind, key: &ObjectKey) -> Result<Answer, api_client::Error> {
    let found = client.api_at::<Whole>(kind.resource.clone()).find(key).await?;
    Ok(Answer::Objects(found.map(|whole| whole.0).into_iter().collect()))
}

async fn list(
    client: &Client,
    kind: &Kind,
    namespace: &str,
    labels: &str,
    fields: &str,
) -> Result<Answer, api_client::Error> {
    let filled = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut params = ListParams {
        namespace: filled(namespace).filter(|_| kind.namespaced()),
        label_selector: filled(labels),
        field_selector: filled(fields),
        limit: PAGE_OBJECTS,
        ..ListParams::default()
    };
    let api = client.api_at::<Whole>(kind.resource.clone());
    let mut objects = Vec::new();
    loop {
        let page = api.list(&params).await?;
        objects.extend(page.items.into_iter().map(|whole| typed(whole.0, kind)));
        if objects.len() > OBJECTS_MAX {
            return Ok(Answer::Refused(format!("there are more than {OBJECTS_MAX}, which are too many to look at")));
        }
        match page.continue_token {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(Answer::Objects(objects)),
        }
    }
}

/// Items of a list don't say what they are.
fn typed(mut object: Value, kind: &Kind) -> Value {
    object["kind"] = kind.kind.as_str().into();
    object["apiVersion"] = api::meta::api_version(&kind.resource.group, &kind.resource.version).into();
    object
}

async fn log(
    client: &Client,
    namespace: &str,
    pod: &str,
    container: &str,
    previous: bool,
) -> Result<String, api_client::Error> {
    let path =
        format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&previous={previous}&tailLines=1");
    Ok(String::from_utf8_lossy(&client.get_bytes(&path).await?).into_owned())
}

/// An object as it is.
#[derive(Clone, Debug, Default, PartialEq)]
struct Whole(Value);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Self)
    }
}

impl api_client::Object for Whole {
    const GROUP: &'static str = <PartialObject as api_client::Object>::GROUP;
    const VERSION: &'static str = <PartialObject as api_client::Object>::VERSION;
    const KIND: &'static str = <PartialObject as api_client::Object>::KIND;
    const PLURAL: &'static str = <PartialObject as api_client::Object>::PLURAL;
    const NAMESPACED: bool = <PartialObject as api_client::Object>::NAMESPACED;
    type Meta = Self;

    fn metadata(&self) -> &Self {
        self
    }
}

impl api_client::Metadata for Whole {
    fn name(&self) -> &str {
        api::meta::name(&self.0)
    }
    fn namespace(&self) -> &str {
        api::meta::namespace(&self.0)
    }
    fn uid(&self) -> &str {
        api::meta::uid(&self.0)
    }
    fn resource_version(&self) -> &str {
        api::meta::resource_version(&self.0)
    }
    fn is_deleting(&self) -> bool {
        api::meta::deletion_timestamp(&self.0).is_some()
    }
}
