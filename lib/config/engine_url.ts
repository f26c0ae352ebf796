/**
 * Parses the URLs of `CACHE_STORE` and `CACHE_INDEX`. It is pure and loads no backend.
 *
 * @module
 */
import { withoutTrailingSlashes } from "../util/text.ts";

/** Settings of a Redis or Valkey server, a cluster, or servers behind sentinels. */
export interface RedisLocation {
  /** Discriminates the union. */
  readonly engine: "redis";
  /** Whether this is a single server, a cluster, or a server behind sentinels. */
  readonly mode: "single" | "cluster" | "sentinel";
  /** Every node or sentinel named in the URL. */
  readonly hosts: readonly { readonly host: string; readonly port: number }[];
  /** Whether connections use TLS. */
  readonly tls: boolean;
  /** The ACL user. */
  readonly username?: string;
  /** The password of the user, or of the server if there is no user. */
  readonly password?: string;
  /** The database number. 0 in a cluster. */
  readonly database: number;
  /** The master's name, as the sentinels know it. */
  readonly master?: string;
  /** The prefix of every key. */
  readonly prefix: string;
}

/** Settings of a bucket in an S3-compatible service. */
export interface S3Setting {
  /** Discriminates the union. */
  readonly engine: "s3";
  /** The URL of the service. */
  readonly endpoint: string;
  /** The region that requests are signed for. */
  readonly region: string;
  /** The name of the bucket. */
  readonly bucket: string;
  /** The prefix of every key. Empty, or without a slash at either end. */
  readonly prefix: string;
  /** Whether the bucket is part of the path instead of the host name. */
  readonly pathStyle: boolean;
  /** `AWS_ACCESS_KEY_ID`. */
  readonly accessKey?: string;
  /** `AWS_SECRET_ACCESS_KEY`. */
  readonly secretKey?: string;
  /** `AWS_SESSION_TOKEN`. */
  readonly sessionToken?: string;
}

/** Where content is stored. */
export type StoreSetting = { readonly engine: "files" } | S3Setting | RedisLocation;
/** Where the index is stored. */
export type IndexSetting = { readonly engine: "sqlite" } | RedisLocation;

const DEFAULT_PREFIX = "deno-docker-proxy";

/**
 * Splits `scheme://user:password@hosts/path?query`. `URL` cannot parse a list of several hosts, which is
 * the usual notation.
 */
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
    throw new RangeError("Invalid percent-encoding in the user or password");
  }
}

/**
 * Parses
 * `redis://[user:password@]host[:port][,host…][/database][?cluster=true|sentinel=MASTER][&prefix=P]`, or
 * `rediss://` for TLS.
 *
 * @throws {RangeError} whose message contains no secret.
 */
export function parseRedisUrl(text: string): RedisLocation {
  const [, scheme = "", userinfo, hostList = "", path = "", search = ""] = PARTS.exec(text) ?? [];
  const tls = scheme.toLowerCase() === "rediss";
  if (!tls && scheme.toLowerCase() !== "redis") {
    throw new RangeError("Expected redis://host or rediss://host");
  }
  // An unescaped "@" would make part of the password look like the host, and put it into messages.
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
  if (!/^\d{0,4}$/.test(path)) throw new RangeError(`Expected a database number: ${path}`);
  const database = Number(path);
  if (isCluster && database !== 0) throw new RangeError("A cluster only has database 0");
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
 * Parses `s3://bucket[/prefix][?endpoint=URL][&region=R][&path_style=false]`. The endpoint defaults to the
 * region's AWS endpoint. Credentials come from `AWS_ACCESS_KEY_ID` and related variables.
 *
 * @throws {RangeError} whose message contains no secret.
 */
function parseS3Url(text: string): (region: string) => S3Setting {
  const [, scheme = "", userinfo, bucket = "", path = "", search = ""] = PARTS.exec(text) ?? [];
  if (scheme.toLowerCase() !== "s3") throw new RangeError("Expected s3://bucket");
  const query = new URLSearchParams(search);
  const endpoint = query.get("endpoint");
  // An access key that contains a slash looks like a bucket and a path.
  if (userinfo !== undefined || search.includes("@") || bucket.includes(":")) {
    throw new RangeError(
      "Credentials do not belong in the URL: use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    );
  }
  if (!/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/.test(bucket)) {
    throw new RangeError(`Invalid bucket name: ${bucket}`);
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

/**
 * The parsed value of `CACHE_STORE`. An S3 setting may still lack its region, which then comes from
 * `AWS_REGION`.
 */
type ParsedStore = { readonly engine: "files" } | RedisLocation | ((region: string) => S3Setting);

/** Parses `files`, `s3://…` or `redis://…`. Throws a `RangeError` whose message contains no secret. */
export function parseStoreSetting(text: string): ParsedStore {
  if (text === "files") return { engine: "files" };
  if (/^rediss?:/i.test(text)) return parseRedisUrl(text);
  if (/^s3:/i.test(text)) return parseS3Url(text);
  throw new RangeError(`Expected files, s3://bucket or redis://host: ${maskUserinfo(text)}`);
}

/** Parses `sqlite` or `redis://…`. Throws a `RangeError` whose message contains no secret. */
export function parseIndexSetting(text: string): IndexSetting {
  if (text === "sqlite") return { engine: "sqlite" };
  if (/^rediss?:/i.test(text)) return parseRedisUrl(text);
  throw new RangeError(`Expected sqlite or redis://host: ${maskUserinfo(text)}`);
}

function maskUserinfo(text: string): string {
  const [start, end] = [text.indexOf("//"), text.lastIndexOf("@")];
  return start < 0 || end < start ? text : `${text.slice(0, start)}//********${text.slice(end)}`;
}

/** The environment's settings of the backends. */
export interface EngineValues {
  readonly CACHE_STORE: ParsedStore;
  readonly CACHE_INDEX?: IndexSetting;
  readonly STORE_REDIRECT: boolean;
  readonly AWS_REGION?: string;
  readonly AWS_ACCESS_KEY_ID?: string;
  readonly AWS_SECRET_ACCESS_KEY?: string;
  readonly AWS_SESSION_TOKEN?: string;
}

/** Returns the backends in force. Adds conflicts between settings to `problems`. */
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

/** Returns a backend's URL with its password masked. */
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
