/**
 * The log line and the counters of a request.
 *
 * @module
 */
import { type Answer, type CacheResult, headOf } from "../response/answer.ts";
import { requestLine, requestLog } from "../telemetry/log.ts";
import { detached } from "../util/lru.ts";
import type { OciError } from "../oci/error.ts";
import type { RequestContext } from "../request/request_context.ts";
import type { Stats } from "../telemetry/stats.ts";

/** What a request turned out to mean. */
export interface Meaning {
  registry?: string;
  repository?: string;
  reference?: string;
  kind: string;
  /** Where the answer is an error: what it says, which the client of a HEAD never sees. */
  failure?: Failure;
}

/** An error as the log has it. */
export interface Failure {
  readonly code: string;
  readonly error: string;
  /** Left out where it is too long for a line. */
  readonly detail?: unknown;
}

/** Upstream's own words are among them, and may be any number. */
const MAX_WORDS = 500;

/**
 * What a registry may repeat of what it was sent: a credential, a token, a signature. Each alternative takes
 * what it has looked at, whether it is a secret or not: looking at it again would take time by its square.
 */
const SECRETS = /\b(bearer|basic)( +)([\w.~+/=-]{8,})?|\beyJ[\w-]+(\.[\w.-]+)?|\?([\w%&=.~+/-]+)/gi;

/** `text` with an ellipsis in place of each secret. */
export function withoutSecrets(text: string): string {
  return text.replace(SECRETS, (found, scheme, blanks, credential, signed, query) => {
    if (credential) return `${scheme}${blanks}…`;
    if (query) return "?…";
    return signed ? "…" : found;
  });
}

/** What the log says of `error`: what its client is told, and nothing of its cause, which may hold a secret. */
export function failureOf({ code, message, detail }: OciError): Failure {
  const said = withoutSecrets(JSON.stringify(detail) ?? "");
  return {
    code,
    error: withoutSecrets(message).slice(0, MAX_WORDS),
    detail: said === "" || said.length > MAX_WORDS ? undefined : JSON.parse(said),
  };
}

/** What of a request is logged. */
export type LoggedRequest = Pick<RequestContext, "method" | "path" | "host" | "client" | "started">;

/** Counts and logs an answer when its body has ended. Never rejects. */
export async function record(
  { method, path, host, client, started }: LoggedRequest,
  { answer, meaning, stats }: { answer: Answer; meaning: Meaning; stats: Stats },
): Promise<void> {
  const { cache } = answer;
  const { failure, ...meant } = meaning;
  const { status, headers } = headOf(answer);
  const length = Number(headers.get("content-length") ?? 0);
  const timed = `${meaning.registry ?? "-"} ${meaning.kind} ${cache ?? "-"}`;
  stats.firstByte.observe(timed, (performance.now() - started) / 1000);
  const { bytes, complete } = await answer.delivered;
  stats.duration.observe(timed, (performance.now() - started) / 1000);
  if (meaning.kind === "manifest" && (cache === "HIT" || cache === "STALE")) {
    stats.imageHit(imageOf(meaning));
  }
  stats.requests.add(labelsOf(meaning, { status, cache }));
  stats.bytesToClients += bytes;
  if (cache === "HIT" || cache === "STALE") stats.bytesFromCache += bytes;
  requestLog.info("{method} {path} {status}", {
    method,
    path,
    host,
    client,
    status,
    ...meant,
    bytes,
    length: complete ? undefined : length,
    complete: complete ? undefined : false,
    ms: Math.round(performance.now() - started),
    cache,
    ...failure,
  });
}

/** Returns what counts and logs an answer that is given again from memory, to a client of some address. */
export function recorder(
  { method, path, host, client }: LoggedRequest,
  { answer, meaning, stats }: { answer: Answer; meaning: Meaning; stats: Stats },
): (client: string) => void {
  const { status } = headOf(answer);
  const bytes = answer.hot?.bytes?.byteLength ?? 0;
  const labels = labelsOf(meaning, { status, cache: "HIT" });
  const timed = `${meaning.registry ?? "-"} ${meaning.kind} HIT`;
  const image = meaning.kind === "manifest" ? detached(imageOf(meaning)) : undefined;
  const line = requestLine({
    method,
    path,
    host,
    client,
    status,
    ...meaning,
    bytes,
    ms: 0,
    cache: "HIT",
  });
  return (client) => {
    stats.requests.add(labels);
    stats.bytesToClients += bytes;
    stats.bytesFromCache += bytes;
    // From memory: in less than the clock can tell.
    stats.firstByte.observe(timed, 0);
    stats.duration.observe(timed, 0);
    if (image) stats.imageHit(image);
    line(client);
  };
}

/** Under what a request is counted. */
function labelsOf(
  { registry, kind }: Meaning,
  { status, cache }: { status: number; cache: CacheResult | undefined },
): string {
  return `${registry ?? "-"} ${kind} ${Math.floor(status / 100)}xx ${cache ?? "-"}`;
}

/** The image of a request for a manifest, as its pulls are counted. */
function imageOf({ registry, repository, reference }: Meaning): string {
  return `${registry} ${repository} ${reference}`;
}
