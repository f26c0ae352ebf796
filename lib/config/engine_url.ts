/**
 * The URLs of `CACHE_STORE` and `CACHE_INDEX`. Pure: nothing of the engines is loaded by reading them.
 *
 * @module
 */
import { withoutTrailingSlashes } from "../util/text.ts";

/** A Redis or Valkey, single, a cluster or behind sentinels. */
export interface RedisLocation {
  /** Tells settings apart. */
  readonly engine: "redis";
  /** One server, a cluster, or one behind sentinels. */
  readonly mode: "single" | "cluster" | "sentinel";
  /** Every node or sentinel that the URL names. */
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  /** Whether connections use TLS. */
  readonly tls: boolean;
  /** Of an ACL user. */
  readonly username?: string;
  /** Of the user, or of Redis as a whole. */
  readonly password?: string;
  /** The number of the database; 0 in a cluster. */
  readonly database: number;
  /** What the sentinels call it. */
  readonly master?: string;
  /** Before every key. */
  readonly prefix: string;
}

/** A bucket of an S3-compatible service. */
export interface S3Setting {
  /** Tells settings apart. */
  readonly engine: "s3";
  /** The URL of the service. */
  readonly endpoint: string;
  /** What requests are signed for. */
  readonly region: string;
  /** The name of the bucket. */
  readonly bucket: string;
  /** Before every key; empty, or without a slash at either end. */
  readonly prefix: string;
  /** Whether the bucket stands in the path and not in the host name. */
  readonly pathStyle: boolean;
  /** `AWS_ACCESS_KEY_ID`. */
  readonly accessKey?: string;
  /** `AWS_SECRET_ACCESS_KEY`. */
  readonly secretKey?: string;
  /** `AWS_SESSION_TOKEN`. */
  readonly sessionToken?: string;
}

/** Where the bytes are. */
export type StoreSetting = { readonly engine: "files" } | S3Setting | RedisLocation;
/** Where everything small is. */
export type IndexSetting = { readonly engine: "sqlite" } | RedisLocation;

const DEFAULT_PREFIX = "deno-docker-proxy";

/** Splits `scheme://user:password@hosts/path?query`; several hosts are no URL, but everybody writes them. */
const PARTS = /^([a-z0-9+]+):\/\/(?:([^@/?]*)@)?([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/i;

function onlyKnown(query: URLSearchParams, known: readonly string[]): void {
  for (const name of query.keys()) {
    if (!known.includes(name)) {
      throw new RangeError(`Unknown parameter: ${name}; expected ${known.join(", ")}`);
    }
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RangeError("Percent-encoding of user or password is broken");
  }
}

/**
 * `redis://[user:password@]host[:port][,host…][/database][?cluster=true|sentinel=MASTER][&prefix=P]`, or
 * `rediss://` for TLS. Throws a `RangeError` that repeats no secret.
 */
export function parseRedisUrl(text: string): RedisLocation {
  const [, scheme = "", userinfo, hostList = "", path = "", search = ""] = PARTS.exec(text) ?? [];
  const tls = scheme.toLowerCase() === "rediss";
  if (!tls && scheme.toLowerCase() !== "redis") {
    throw new RangeError("Expected redis://host or rediss://host");
  }
  // Half of a password would be taken for the host, and told.
  if (`${hostList}${path}${search}`.includes("@")) {
    throw new RangeError("Write @ / ? in user and password as %40 %2F %3F");
  }
  const query = new URLSearchParams(search);
  onlyKnown(query, ["cluster", "sentinel", "prefix"]);
  const master = query.get("sentinel") ?? undefined;
  const isCluster = query.get("cluster") === "true";
  if (master !== undefined && isCluster) {
    throw new RangeError("Set cluster or sentinel, not both");
  }
  const mode = isCluster ? "cluster" : master !== undefined ? "sentinel" : "single";
  const hosts = hostList.split(",").filter((entry) => entry !== "").map((entry) => {
    const url = URL.parse(`http://${entry}`);
    if (!url || !url.hostname || url.pathname !== "/") {
      throw new RangeError(`Not a host: ${entry}`);
    }
    const port = /:(\d+)$/.exec(entry)?.[1];
    const host = url.hostname.replace(/^\[|\]$/g, "");
    return { host, port: port ? Number(port) : mode === "sentinel" ? 26379 : 6379 };
  });
  if (hosts.length === 0) throw new RangeError("Expected a host");
  if (hosts.length > 1 && mode === "single") {
    throw new RangeError("Several hosts need cluster=true or sentinel=NAME");
  }
  if (!/^\d{0,4}$/.test(path)) throw new RangeError(`Expected a database's number: ${path}`);
  const database = Number(path);
  if (isCluster && database !== 0) throw new RangeError("A cluster has database 0 only");
  const colon = userinfo?.indexOf(":") ?? -1;
  const username = colon < 0 ? userinfo : userinfo?.slice(0, colon);
  const password = colon < 0 ? undefined : userinfo?.slice(colon + 1);
  return {
    engine: "redis",
    mode,
    hosts,
    tls,
    username: username ? decoded(username) : undefined,
    password: password ? decoded(password) : undefined,
    database,
    master,
    prefix: query.get("prefix") || DEFAULT_PREFIX,
  };
}

/**
 * `s3://bucket[/prefix][?endpoint=URL][&region=R][&path_style=false]`. Without an endpoint it is AWS's of
 * the region. Credentials come from `AWS_ACCESS_KEY_ID` and its kin. Throws a `RangeError`.
 */
function parseS3Url(text: string): (region: string) => S3Setting {
  const [, scheme = "", userinfo, bucket = "", path = "", search = ""] = PARTS.exec(text) ?? [];
  if (scheme.toLowerCase() !== "s3") throw new RangeError("Expected s3://bucket");
  const query = new URLSearchParams(search);
  const endpoint = query.get("endpoint");
  // A key with a slash in it looks like the bucket and a path.
  if (userinfo !== undefined || search.includes("@") || bucket.includes(":")) {
    throw new RangeError(
      "Credentials do not belong in the URL: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    );
  }
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) {
    throw new RangeError(`Not a bucket's name: ${bucket}`);
  }
  onlyKnown(query, ["endpoint", "region", "path_style"]);
  if (endpoint !== null && !/^https?:$/.test(URL.parse(endpoint)?.protocol ?? "")) {
    throw new RangeError(`Expected an http or https URL as endpoint: ${endpoint}`);
  }
  const prefix = withoutTrailingSlashes(path.replace(/^\/+/, ""));
  const pathStyle = (query.get("path_style") ?? "true") === "true";
  return (defaultRegion) => {
    const region = query.get("region") ?? defaultRegion;
    const origin = withoutTrailingSlashes(endpoint ?? `https://s3.${region}.amazonaws.com`);
    return { engine: "s3", endpoint: origin, region, bucket, prefix, pathStyle };
  };
}

/** `CACHE_STORE` as parsed: an S3 URL waits for the region of `AWS_REGION`. */
type ParsedStore = { readonly engine: "files" } | RedisLocation | ((region: string) => S3Setting);

/** `files`, `s3://…` or `redis://…`. Throws a `RangeError` that repeats no secret. */
export function parseStoreSetting(text: string): ParsedStore {
  if (text === "files") return { engine: "files" };
  if (/^rediss?:/i.test(text)) return parseRedisUrl(text);
  if (/^s3:/i.test(text)) return parseS3Url(text);
  throw new RangeError(`Expected files, s3://bucket or redis://host: ${maskUserinfo(text)}`);
}

/** `sqlite` or `redis://…`. Throws a `RangeError` that repeats no secret. */
export function parseIndexSetting(text: string): IndexSetting {
  if (text === "sqlite") return { engine: "sqlite" };
  if (/^rediss?:/i.test(text)) return parseRedisUrl(text);
  throw new RangeError(`Expected sqlite or redis://host: ${maskUserinfo(text)}`);
}

function maskUserinfo(text: string): string {
  const [start, end] = [text.indexOf("//"), text.lastIndexOf("@")];
  return start < 0 || end < start ? text : `${text.slice(0, start)}//********${text.slice(end)}`;
}

/** What the environment says of the engines. */
export interface EngineValues {
  readonly CACHE_STORE: ParsedStore;
  readonly CACHE_INDEX?: IndexSetting;
  readonly STORE_REDIRECT: boolean;
  readonly AWS_REGION?: string;
  readonly AWS_ACCESS_KEY_ID?: string;
  readonly AWS_SECRET_ACCESS_KEY?: string;
  readonly AWS_SESSION_TOKEN?: string;
}

/** The engines in force; `problems` collects what does not go together. */
export function checkEngines(
  values: EngineValues,
  problems: string[],
): { readonly store: StoreSetting; readonly index: IndexSetting } {
  const { CACHE_STORE } = values;
  const store: StoreSetting = typeof CACHE_STORE !== "function" ? CACHE_STORE : {
    ...CACHE_STORE(values.AWS_REGION ?? "us-east-1"),
    accessKey: values.AWS_ACCESS_KEY_ID,
    secretKey: values.AWS_SECRET_ACCESS_KEY,
    sessionToken: values.AWS_SESSION_TOKEN,
  };
  const index = values.CACHE_INDEX ?? (store.engine === "redis" ? store : { engine: "sqlite" });
  if (store.engine === "files" && index.engine === "redis") {
    problems.push("CACHE_INDEX: A shared index needs a shared CACHE_STORE: s3:// or redis://");
  }
  if (store.engine === "redis" && index.engine === "sqlite") {
    problems.push("CACHE_INDEX: With CACHE_STORE=redis:// the index is in Redis too");
  }
  if (values.STORE_REDIRECT && store.engine !== "s3") {
    problems.push("STORE_REDIRECT: Needs CACHE_STORE=s3://bucket");
  }
  if ((values.AWS_ACCESS_KEY_ID === undefined) !== (values.AWS_SECRET_ACCESS_KEY === undefined)) {
    problems.push("AWS_ACCESS_KEY_ID: Set both this and AWS_SECRET_ACCESS_KEY, or neither");
  }
  return { store, index };
}

/** A location as a URL without its password. */
export function describeEngine(setting: StoreSetting | IndexSetting): string {
  switch (setting.engine) {
    case "files":
    case "sqlite":
      return setting.engine;
    case "s3": {
      const query = new URLSearchParams({
        endpoint: setting.endpoint,
        region: setting.region,
        path_style: String(setting.pathStyle),
      });
      return `s3://${setting.bucket}${setting.prefix && `/${setting.prefix}`}?${query}`;
    }
    case "redis": {
      const { tls, username, password, hosts, database, mode, master, prefix } = setting;
      const user = username || password ? `${username ?? ""}${password ? ":********" : ""}@` : "";
      const list = hosts.map(({ host, port }) =>
        `${host.includes(":") ? `[${host}]` : host}:${port}`
      );
      const query = new URLSearchParams({ prefix });
      if (mode === "cluster") query.set("cluster", "true");
      if (master) query.set("sentinel", master);
      return `redis${tls ? "s" : ""}://${user}${list.join(",")}/${database}?${query}`;
    }
  }
}
