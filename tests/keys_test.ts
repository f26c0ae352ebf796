/**
 * What is kept is found by its key. Where the key leaves out something that decides an answer, one client gets
 * another's; where it is made from the raw request, a client chooses whose. So every place in `lib/` that keeps
 * something by key is named here, with what its key holds and why nothing that decides is missing.
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { placesOf, sources } from "./support/kept.ts";
import { ROOT } from "./support/proxy_process.ts";

/** What is said of a place. */
type Kept =
  /** Filled once, with what stands in the source or comes from the configuration. */
  | { readonly kind: "constant" }
  /** Made for one call, one request or one command, and gone with it. */
  | { readonly kind: "local" }
  /** Part of a class whose users choose the keys: each place that makes one is named here itself. */
  | { readonly kind: "generic"; readonly class: string }
  /** No client's request chooses the key, or no answer depends on what is found. */
  | { readonly kind: "inner"; readonly holds: string; readonly why: string }
  /** A request chooses the key, and an answer, an access or a limit depends on what is found. */
  | {
    readonly kind: "asked";
    readonly holds: string;
    readonly why: string;
    /** A test that attacks it: `path: “name”`. */
    readonly attack: string;
  };

const constant: Kept = { kind: "constant" };
const local: Kept = { kind: "local" };
const generic = (name: string): Kept => ({ kind: "generic", class: name });
const inner = (holds: string, why: string): Kept => ({ kind: "inner", holds, why });
const asked = (holds: string, why: string, attack: string): Kept => ({
  kind: "asked",
  holds,
  why,
  attack,
});

const MEET =
  "tests/proxy/one_key_test.ts: “requests that differ in one thing that decides never share an answer, however they meet”";
const NAMED =
  "tests/proxy/one_key_test.ts: “however a registry is named, its answers are kept for nobody else, on ${name}”";
const TOKENS = "tests/upstream/token_test.ts: “${name} means another token”";
const CLIENTS =
  "tests/proxy/limits_test.ts: “clients have budgets of their own; one with IPv6 cannot change address within its /64”";
const DIGEST =
  "tests/proxy/private_test.ts: “who knows a digest gets it from no repository that upstream does not have it in”";

const REPOSITORY = "registry (its id: host, port, base path) and repository";
const BY_DIGEST =
  "The digest is that of the bytes, whoever asks and wherever they came from; access is proved before, by link";
const ACCOUNTING = "Accounting of space by digest: no answer is taken from it";
const COUNTED = "Counters: no answer depends on them";

/** By file, then by the name of what is assigned. */
const KEPT: Readonly<Record<string, Readonly<Record<string, Kept>>>> = {
  "lib/auth/access.ts": {
    "#grants": asked(
      `id of the credential, ${REPOSITORY}`,
      "One credential may read one repository: nothing else decides. The id is a hash of all of the credential",
      "tests/upstream/registry_client_test.ts: “a grant is for one repository of one registry”",
    ),
    "marks": asked(
      REPOSITORY,
      "That everybody may read it does not depend on who asks",
      "tests/proxy/private_test.ts: “the same name at another registry is another repository”",
    ),
  },
  "lib/admin/api.ts": { "routes": constant },
  "lib/operator/history.ts": {
    "counts": local,
    "hour": inner("time at which a step began", COUNTED),
    "day": inner("time at which a step began", COUNTED),
    "month": inner("time at which a step began", COUNTED),
  },
  "lib/admin/images.ts": { "names": local, "opened": local },
  "lib/admin/login.ts": {
    "#failures": asked(
      "client address, an IPv6 one by its network",
      "Who guesses is slowed down, whatever is guessed; no header can change the address",
      "tests/admin/login_test.ts: “an IPv6 network counts as one address, and wrong cookies do not count as guesses”",
    ),
  },
  "lib/admin/metrics.ts": { "(expression)": local, "names": local },
  "lib/admin/views.ts": { "names": local },
  "lib/cache/blob_fetch.ts": {
    "#flights": asked(
      `${REPOSITORY}, digest, id of the credential, HEAD or not, whether the proxy itself wants it`,
      "Upstream is asked with nothing else of a request; ranges are cut from what comes of it",
      MEET,
    ),
    "#members": asked(
      `the fill; in it ${REPOSITORY}; in it id of the credential`,
      "Who had an answer of upstream's to this digest in this repository reads along",
      "tests/proxy/private_test.ts: “while somebody's pull is under way nobody joins it who could not start it”",
    ),
    "#audiences": asked(
      "as of `#flights`",
      "Who waits for the same; whose turn comes is each client's own, below",
      "tests/proxy/limits_test.ts: “who asks for what another waits for has a turn of their own, and begins it for both”",
    ),
    "#owners": asked(
      "the download that is waited for; in it the client, an IPv6 one by its network",
      "Each client waits in its own turn, whoever asked first",
      "tests/proxy/limits_test.ts: “who asks for what another waits for has a turn of their own, and begins it for both”",
    ),
    "callers": inner("id of the credential", "Part of `#members`"),
    "(expression)": inner(`${REPOSITORY}`, "Part of `#members`, empty as it is made"),
  },
  "lib/cache/content/content.ts": {
    "#checks": inner("digest", BY_DIGEST),
    "#memory": inner("digest", BY_DIGEST),
    "#reads": inner("digest", BY_DIGEST),
    "#hashed": inner("digest", BY_DIGEST),
    "#condemning": inner("digest", BY_DIGEST),
    "#failures": inner("digest and when it was stored", BY_DIGEST),
  },
  "lib/cache/content/capacity.ts": {
    "#uses": inner("digest", ACCOUNTING),
    "#pins": inner("digest", ACCOUNTING),
    "#kept": inner("digest", ACCOUNTING),
    "#admissions": inner("one lock for all", ACCOUNTING),
    "#changes": inner("digest", ACCOUNTING),
  },
  "lib/cache/content/fill.ts": {
    "#recent": inner("offset in the one file of this fill", "A fill has one digest"),
  },
  "lib/cache/content/fills.ts": {
    "#fills": asked(
      "digest",
      `${BY_DIGEST}; nobody joins who could not start it`,
      "tests/proxy/private_test.ts: “while somebody's pull is under way nobody joins it who could not start it”",
    ),
    "#starts": asked("digest", "As of `#fills`", DIGEST),
    "#settling": inner("the fill itself", "Found by what was found by digest"),
    "#unwanted": inner("the fill itself", "Found by what was found by digest"),
  },
  "lib/cache/content/stopped_fills.ts": {
    "#parts": asked(
      "digest; in it the registry and the repository that it came from",
      "Only the same repository goes on with it, and what comes of it is verified by the digest",
      "tests/proxy/abandoned_test.ts: “what is left of a stopped download goes with the first bytes that are wrong, and the next client gets right ones”",
    ),
  },
  "lib/cache/cluster/grants.ts": {
    "redis secret": inner("nothing", "One secret for all instances"),
    "redis g:": asked(
      `id of the credential, ${REPOSITORY}`,
      "As of the grants in memory; hashed with a secret",
      "tests/e2e/shared_test.ts: “a private image is served by another instance to who was let in, and to nobody else”",
    ),
  },
  "lib/cache/content/inventory.ts": {
    "#nodes": inner("digest", "Lives as long as one listing; what a digest holds never changes"),
    "#summaries": inner("digest", "What a digest holds never changes"),
    "found": local,
    "known": local,
    "platforms": local,
  },
  "lib/cache/cluster/lease.ts": {
    "redis f:": inner(
      `digest; or ${REPOSITORY}, reference and, unless it was let in lately, the caller; or "upkeep": no two look alike`,
      "A lock among instances: what it guards is looked up and proved anew by each",
    ),
    "redis fence": inner("nothing", "One number for all leases"),
  },
  "lib/cache/manifests.ts": {
    "#flights": asked(
      `${REPOSITORY}, tag or digest, id of the credential, HEAD or not`,
      "Upstream is asked for every type; who accepts another one asks for himself",
      MEET,
    ),
  },
  "lib/cache/cluster/peer.ts": {
    "#since": inner("URL of an instance", "Instances tell each other, by Redis"),
  },
  "lib/cache/store/private_dir.ts": { "MOUNTED": constant },
  "lib/cache/store/redis.ts": { "redis probe": inner("nothing", "Whether Redis may be written") },
  "lib/cache/index/redis_index.ts": {
    "redis b:": inner("digest", BY_DIGEST),
    "redis u": inner("digest", ACCOUNTING),
    "redis l:": asked(`digest; in it ${REPOSITORY} and kind`, "As of SQLite's links", DIGEST),
    "redis t:": asked(`${REPOSITORY}; in it the tag`, "As of SQLite's tags", MEET),
    "redis T": inner(REPOSITORY, "Which repositories have tags, for whoever operates it"),
    "redis P": asked(REPOSITORY, "As of the marks in memory", MEET),
    "redis x": inner("digest", ACCOUNTING),
    "redis n": inner("nothing", ACCOUNTING),
    "#crowded": inner(`kind of fact, ${REPOSITORY}`, ACCOUNTING),
  },
  "lib/cache/index/redis_scripts.ts": {
    "redis b:": inner("digest", BY_DIGEST),
    "redis l:": asked(`digest; in it ${REPOSITORY} and kind`, "As of SQLite's links", DIGEST),
    "redis t:": asked(`${REPOSITORY}; in it the tag`, "As of SQLite's tags", MEET),
    "redis P": asked(REPOSITORY, "As of the marks in memory", MEET),
    "redis g:": asked(
      `id of the credential, ${REPOSITORY}`,
      "As of the grants in memory; hashed with a secret",
      "tests/e2e/shared_test.ts: “a private image is served by another instance to who was let in, and to nobody else”",
    ),
    "redis tn": inner(`${REPOSITORY}, tag`, "Tags in order, for whoever operates it"),
    "redis f": inner(`kind of fact, ${REPOSITORY}`, ACCOUNTING),
    "redis U": inner(`kind of fact, ${REPOSITORY}; in it what is used`, ACCOUNTING),
    "redis Ulinks:": inner(`${REPOSITORY}; in it digest and kind`, ACCOUNTING),
    "redis d:": inner("digest; in it repositories and tags", "What leaves with a digest"),
    "redis n": inner("nothing", ACCOUNTING),
    "redis u": inner("digest", ACCOUNTING),
    "redis v": inner("digest", ACCOUNTING),
    "redis o": inner("digest", ACCOUNTING),
    "redis c": inner("nothing", ACCOUNTING),
    "redis x": inner("digest", ACCOUNTING),
    "redis RP": asked(
      `when, and ${REPOSITORY}`,
      "Which repositories are public no more: whoever is told asks upstream again",
      MEET,
    ),
    "redis r": inner("instance", ACCOUNTING),
    "redis rx": inner("instance", ACCOUNTING),
  },
  "lib/cache/store/redis_store.ts": {
    "redis S": inner("digest", ACCOUNTING),
    "redis M:": inner("digest", BY_DIGEST),
    "redis C:": inner("random number of what was written at once, and place in it", BY_DIGEST),
    "redis R": inner("random number of what was written at once", ACCOUNTING),
    "redis RS": inner("random number of what was written at once", ACCOUNTING),
    "redis Q:": inner("digest", "What was moved aside: nobody is served from it"),
    "redis QS": inner("digest", "What was moved aside: nobody is served from it"),
  },
  "lib/cache/content/removal.ts": {
    "roots": local,
    "leaving": local,
    "staying": local,
    "stayingBeside": local,
    "parts": local,
  },
  "lib/cache/store/s3/requests.ts": {
    "#waiting": inner("the request itself", "Nothing is looked up: all are told together"),
    "#failing": inner(
      "name of an object",
      "Whether the service fails with several: no answer is found by it",
    ),
  },
  "lib/cache/store/s3/store.ts": {
    "#permits": inner("nothing", "So many parts at once, of whatever"),
    "#seen": inner("digest", BY_DIGEST),
  },
  "lib/cache/cluster/shared_limits.ts": {
    "#local": asked(
      "see lib/limits/gate.ts",
      "While Redis is away",
      CLIENTS,
    ),
    "redis rate:": asked(
      "see lib/limits/gate.ts",
      "The same keys, counted by all instances",
      CLIENTS,
    ),
    "redis quotas": inner(
      "registry's id and account",
      "What registries say of the operator's accounts",
    ),
  },
  "lib/cache/cluster/leader_tasks.ts": {
    "redis made": inner("nothing", "Whether the index was filled"),
  },
  "lib/cache/index/sqlite_file.ts": {
    "#statements": inner("text of the statement", "All stand in the source"),
  },
  "lib/cache/index/sqlite_index.ts": {
    "sqlite blobs": inner("digest", BY_DIGEST),
    "sqlite links": asked(
      `${REPOSITORY}, digest, kind`,
      "That upstream has it in this repository does not depend on who asks; whether he may is proved beside it",
      DIGEST,
    ),
    "sqlite tags": asked(
      `${REPOSITORY}, tag`,
      "Asked of upstream with every type acceptable; who accepts another gets upstream's own answer. Notes of what is attached begin with what no tag may hold",
      MEET,
    ),
    "sqlite public_repositories": asked(
      REPOSITORY,
      "That everybody may read it does not depend on who asks",
      MEET,
    ),
    "sqlite removals": inner("digest", BY_DIGEST),
    "sqlite usage": inner(`kind of fact, ${REPOSITORY}`, ACCOUNTING),
    "#crowded": inner(`kind of fact, ${REPOSITORY}`, ACCOUNTING),
    "(expression)": local,
    "sqlite unsettled": inner("digest", BY_DIGEST),
    "sqlite totals": inner("nothing", ACCOUNTING),
  },
  "lib/cache/index/buffered_index.ts": {
    "#rows": inner("digest", BY_DIGEST),
    "#links": asked(`${REPOSITORY}, digest, kind`, "As of the index that it stands for", DIGEST),
    "#tags": asked(`${REPOSITORY}, tag`, "As of the index that it stands for", MEET),
    "#marks": asked(REPOSITORY, "As of the index that it stands for", MEET),
  },
  "lib/cache/cluster/coordinator.ts": {
    "rates": asked(
      "see lib/limits/gate.ts",
      "The same keys, counted by all instances",
      CLIENTS,
    ),
  },
  "lib/util/keyed_mutex.ts": { "#last": generic("KeyedMutex") },
  "lib/cache/content/maintenance.ts": {
    "#work": inner("the work itself", "Nothing is looked up: it is waited for"),
  },
  "lib/commands/bars.ts": { "#bars": inner("digest", "Lines of a terminal") },
  "lib/util/single_flight.ts": { "#running": generic("SingleFlight") },
  "lib/telemetry/histogram.ts": { "#cells": generic("Histogram") },
  "lib/response/response_cache.ts": {
    "TIMELY": constant,
    "accepted": inner(
      "Accept; in it media types",
      "What the one says of the other is all that is remembered",
    ),
    "types": inner("media type", "Part of `accepted`"),
    "#answers": asked(
      "method, host, path and query, all as routing has them",
      "They say registry, repository, reference and representation asked for; public answers only, so that the caller decides nothing; Accept, conditions, ranges and malformed credentials are looked at beside the key",
      NAMED,
    ),
    "#counts": inner(
      `digest, or ${REPOSITORY}`,
      "Whether there is anything to forget: no answer is found by it",
    ),
  },
  "lib/server/http1/buffers.ts": { "#free": inner("size", "Memory of buffers that nobody uses") },
  "lib/server/http1/connection.ts": { "WITH_BODY": constant },
  "lib/server/http1/connections.ts": {
    "#byAddress": asked(
      "client address",
      "How many connections an address has, which the kernel says",
      "tests/server/http1/server_test.ts: “of too many connections of one address the longest idle goes, and where all are busy another gets 429 at once”",
    ),
    "own": inner("the connection itself", "Part of `#byAddress`"),
    "#held": inner("the connection itself", "Nothing is looked up by it"),
  },
  "lib/server/http1/slabs.ts": {
    "#open": inner("the memory itself", "Buffers that nobody uses"),
    "#slabs": inner("the memory itself", "Buffers that nobody uses"),
  },
  "lib/warm/scheduler.ts": {
    "#kept": inner("image as the configuration names it", "The operator chooses them"),
    "all": local,
    "kept": local,
  },
  "lib/limits/fair_queue.ts": {
    "#clients": asked(
      `client address; in it ${REPOSITORY}`,
      "Who waits, and for what: an address is one client's, whatever it asks for",
      "tests/limits/fair_queue_test.ts: “clients take turns, however many one of them wants”",
    ),
    "byName": inner(REPOSITORY, "Part of `#clients`"),
  },
  "lib/limits/gate.ts": {
    "#counter": asked(
      "hits or misses, and the client: its address, an IPv6 one by its network",
      "The limit is one for each client, whatever it asks for; X-Forwarded-For counts only where it comes from a trusted proxy",
      "tests/proxy/limits_test.ts: “X-Forwarded-For of a peer that is no trusted proxy is not believed”",
    ),
  },
  "lib/limits/quota.ts": {
    "#quotas": inner(
      "registry's id and the operator's account",
      "What upstream says of that account",
    ),
    "#chosenAt": inner("registry's id and the operator's account", "Whose turn it is"),
  },
  "lib/limits/request_limit.ts": {
    "#underWay": asked(
      "client address, an IPv6 one by its network",
      "The limit is one for each client, whatever it asks for",
      "tests/limits/request_limit_test.ts: “addresses of one IPv6 network are one client”",
    ),
  },
  "lib/limits/rate_limit.ts": { "#wholeAt": generic("MemoryRateCounter") },
  "lib/config/values.ts": { "named": local },
  "lib/telemetry/log.ts": { "said": local },
  "lib/util/lru.ts": { "#boxes": generic("ByteLru") },
  "lib/oci/challenge.ts": { "params": local },
  "lib/oci/digest.ts": { "ENCODED": constant },
  "lib/oci/scope.ts": { "scopes": local },
  "lib/oci/registry.ts": { "aliases": constant },
  "lib/response/under_way.ts": {
    "#held": asked(
      "digest that was computed here",
      "The bytes are the same, whoever is sent them; what only a registry calls so has another key",
      "tests/response/answer_test.ts: “two contents that registries call by one digest which cannot be computed here are never mixed up”",
    ),
  },
  "lib/config/upstreams.ts": { "groups": local, "names": local },
  "lib/telemetry/stats.ts": {
    "#values": generic("Counter"),
    "requests": inner("registry, kind, status class, how the cache took part", COUNTED),
    "upstreamRequests": inner("registry and status class", COUNTED),
    "upstreamErrors": inner("registry and reason", COUNTED),
    "upstreamRetries": inner("registry", COUNTED),
    "upstreamResumes": inner("registry", COUNTED),
    "cacheEvents": inner("event", COUNTED),
    "rejected": inner("reason", COUNTED),
    "firstByte": inner("registry, kind, how the cache took part", COUNTED),
    "duration": inner("registry, kind, how the cache took part", COUNTED),
    "registries": inner("registry's name", "How it does, for whoever operates it"),
    "#imageHits": inner("registry's name, repository, reference, as routing has them", COUNTED),
  },
  "lib/transforms/policy.ts": {
    "(expression)": local,
    "known": inner("the registry", "Its names, which the configuration says"),
  },
  "lib/transforms/redirect.ts": { "REDIRECTS": constant },
  "lib/transforms/route.ts": { "KINDS": constant },
  "lib/upstream/registry_client.ts": {
    "#learning": inner("the work itself", "Nothing is looked up: it is waited for"),
    "#probes": asked(
      `${REPOSITORY}, kind, reference`,
      "It is asked as nobody in particular, with nothing that a client chose",
      MEET,
    ),
    "tried": local,
  },
  "lib/upstream/client.ts": {
    "#downUntil": inner(
      "registry's id",
      "Whether a server can be reached does not depend on what is asked of it",
    ),
  },
  "lib/upstream/transport/connect.ts": { "WITHOUT_BODY": constant },
  "lib/upstream/storage_retry.ts": { "PASSING": constant, "LINK_ENDED": constant },
  "lib/upstream/token.ts": {
    "#requirements": inner("registry's id", "What a registry asks everybody for"),
    "#requirementFlights": inner("registry's id", "Asked without anything of a request"),
    "#tokens": asked(
      "hash of registry's id, realm, service, scopes, id of the credential or the whole grant, and what else a client tells the realm",
      "That is all that the realm is asked with",
      TOKENS,
    ),
    "#tokenFlights": asked("as of `#tokens`", "As of `#tokens`", TOKENS),
    "#anonymous": asked(
      "hash of the token, without the registry",
      "Who shows a token that was given to nobody in particular is nobody, at any registry: that takes access and never gives any, and no registry gets another's token",
      "tests/upstream/token_test.ts: “a token is known to be nobody's where it was given for no credential, and only there”",
    ),
  },
  "lib/util/memory_budget.ts": {
    "#reliefs": inner("the function itself", "Nothing is looked up: all are called"),
  },
  "lib/warm/image_warmer.ts": {
    "#seen": inner("role and reference", "Lives as long as the warming of one image"),
    "#here": inner("digest", "Lives as long as the warming of one image"),
    "#lists": inner("digest", "Lives as long as the warming of one image"),
  },
};

const all = Object.entries(KEPT).flatMap(([file, names]) =>
  Object.entries(names).map(([name, kept]) => ({ file, name, kept }))
);
const classes = all.flatMap(({ kept }) => kept.kind === "generic" ? [kept.class] : []);
const places = sources().flatMap((source) =>
  placesOf(source, [...classes, "RedisRateCounter", "Semaphore"])
);

Deno.test("whatever is kept by key says what its key holds, and why nothing that decides is missing", () => {
  const unknown = places.filter(({ file, name }) => !KEPT[file]?.[name])
    .map(({ file, name, line }) => `${file}:${line} ${name}`);
  assertEquals(
    unknown,
    [],
    `Something new is kept by key. In tests/keys_test.ts, add to KEPT what its key holds and why:
  asked(holds, why, attack)  a request chooses the key and an answer, an access or a limit depends on it: the key
                             must hold whatever decides (registry, repository, reference, method, what the client
                             accepts, who asks), as RequestContext and Target have it and never from the raw
                             request; "attack" names the test that tries to get another's
  inner(holds, why)          no request chooses the key, or no answer depends on what is found
  local                      gone at the end of the call, the request or the command
  constant                   filled once, from the source or the configuration
  generic("Class")           part of a class whose users choose the keys: then name its users too`,
  );
});

Deno.test("no place is named that is not there any more", () => {
  const found = new Set(places.map(({ file, name }) => `${file} ${name}`));
  const gone = all.map(({ file, name }) => `${file} ${name}`).filter((place) => !found.has(place));
  assertEquals(gone, [], "Take these out of KEPT in tests/keys_test.ts");
});

Deno.test("a store and an index in one Redis have no key in common", () => {
  const STORE = "lib/cache/store/redis_store.ts";
  const inRedis = places.filter(({ name }) => name.startsWith("redis "));
  const ofStore = new Set(inRedis.filter(({ file }) => file === STORE).map(({ name }) => name));
  const both = inRedis.filter(({ file, name }) => file !== STORE && ofStore.has(name))
    .map(({ file, name, line }) => `${file}:${line} ${name}`);
  assert(ofStore.size > 3);
  assertEquals(both, [], `${STORE} has a key of that name too: they have one prefix`);
});

Deno.test("whatever a request can choose the key of has a test that attacks it", () => {
  for (const { file, name, kept } of all) {
    if (kept.kind !== "asked") continue;
    const [, path = "", test = ""] = /^(tests\/[\w./]+): “(.+)”$/.exec(kept.attack) ?? [];
    assert(path, `${file} ${name}: expected tests/file.ts: “name”, not ${kept.attack}`);
    assert(
      Deno.readTextFileSync(join(ROOT, path)).includes(test),
      `${file} ${name}: ${kept.attack}`,
    );
  }
});

/** Who may look at the raw request: `file: why`. */
const RAW: Readonly<Record<string, string>> = {
  "lib/request/request_context.ts": "It is the one place where requests are read",
  "lib/upstream/passthrough.ts": "Its request has the context's URL",
  "lib/admin/guard.ts": "The operator's listener keeps no answers",
  "lib/admin/server.ts": "The operator's listener keeps no answers",
};

Deno.test("nobody but the request's context reads a host, a path or a query from the raw request", () => {
  const raw = /\brequest\.url\b|\.get\("host"\)|\bheader\("host"\)/g;
  const found = sources().flatMap(({ file, text }) =>
    [...text.matchAll(raw)].map(({ index }) => `${file}:${text.slice(0, index).split("\n").length}`)
  ).filter((place) => !(place.split(":")[0]! in RAW));
  assertEquals(found, [], "Take it from the RequestContext: host, target, path, url");
});
