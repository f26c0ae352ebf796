/**
 * What a test server can do wrong, and when: a rule matches requests, or a seeded schedule decides each one.
 *
 * @module
 */
import { randomOf } from "./content.ts";

/** One way to answer badly. Fields combine; byte offsets count body bytes of this answer. */
export interface Fault {
  /** Milliseconds before the first byte of the answer. */
  readonly delay?: number;
  /** The answer never starts. */
  readonly never?: boolean;
  /** The connection is closed instead of an answer. */
  readonly hangUp?: boolean;
  /** This status with an error body instead of the real answer. */
  readonly status?: number;
  /** This body instead of the real one, with its own Content-Length. */
  readonly body?: string | Uint8Array<ArrayBuffer>;
  /** Headers that replace those of the same name (`null` removes one), or are added. */
  readonly headers?: Readonly<Record<string, string | null>>;
  /** Headers added after all others, also when they are there already. */
  readonly extraHeaders?: readonly (readonly [string, string])[];
  /** A header `x-padding` of that many bytes. */
  readonly hugeHeaders?: number;
  /** The connection is closed (FIN) after that many body bytes. */
  readonly cutAt?: number;
  /** The connection is reset (RST) after that many body bytes. */
  readonly resetAt?: number;
  /** Nothing more is sent after that many body bytes, and the connection stays open. */
  readonly stallAt?: number;
  /** Milliseconds after which a stall ends. @default {Infinity} */
  readonly stallFor?: number;
  /** That byte of the body is another one. */
  readonly corruptAt?: number;
  /** The body, and the Content-Length with it, ends there. */
  readonly truncateTo?: number;
  /** That many bytes are sent beyond the body, and Content-Length counts them. */
  readonly extra?: number;
  /** What Content-Length says, whatever the body; `null` leaves it out (a chunked body). */
  readonly contentLength?: number | null;
  /** A Range header is not seen. */
  readonly ignoreRange?: boolean;
  /** Body bytes per second. */
  readonly rate?: number;
  /** A chunked body that begins like the real one and never ends. */
  readonly endless?: boolean;
  /** The body is gzip'd, whatever Accept-Encoding says. */
  readonly gzip?: boolean;
}

/** Which requests a fault is for: every given field must agree. */
export interface FaultFilter {
  readonly method?: string;
  readonly kind?: string;
  readonly repository?: string;
  readonly reference?: string;
  /** Whether the request asks for a range. */
  readonly range?: boolean;
}

/** The part of a request that filters see. */
export interface FaultSubject {
  readonly method: string;
  readonly kind: string;
  readonly repository?: string;
  readonly reference?: string;
  readonly headers: Headers;
}

/** Decides one request's fault; `random` is the schedule's own generator. */
export type Schedule = (request: FaultSubject, random: () => number) => Fault | undefined;

interface Rule {
  readonly filter: FaultFilter;
  readonly fault: Fault;
  skip: number;
  times: number;
  hits: number;
}

/** The faults of one server, and the switch for them. */
export class Faults {
  #rules: Rule[] = [];
  #decide?: (request: FaultSubject) => Fault | undefined;

  /**
   * Answers matching requests with `fault`: the first `skip` (0) of them not, then `times` (all) of them.
   * Earlier rules win. Returns what counts the hits and takes the rule away.
   */
  add(
    filter: FaultFilter,
    fault: Fault,
    options: { times?: number; skip?: number } = {},
  ): { readonly hits: number; remove(): void } {
    const rule = {
      filter,
      fault,
      skip: options.skip ?? 0,
      times: options.times ?? Infinity,
      hits: 0,
    };
    this.#rules.push(rule);
    return {
      get hits() {
        return rule.hits;
      },
      remove: () => {
        this.#rules = this.#rules.filter((r) => r !== rule);
      },
    };
  }

  /** Lets a schedule decide what no rule matched. The same seed and order of requests give the same faults. */
  schedule(seed: number, decide: Schedule): void {
    const random = randomOf(seed);
    this.#decide = (request) => decide(request, random);
  }

  /** Removes every rule and the schedule. */
  clear(): void {
    this.#rules = [];
    this.#decide = undefined;
  }

  /** The fault for one request; counts it. */
  next(request: FaultSubject): Fault | undefined {
    for (const rule of this.#rules) {
      if (!matches(rule.filter, request) || rule.times <= 0) continue;
      if (rule.skip > 0) {
        rule.skip--;
        continue;
      }
      rule.times--;
      rule.hits++;
      return rule.fault;
    }
    return this.#decide?.(request);
  }
}

function matches(filter: FaultFilter, request: FaultSubject): boolean {
  return (filter.method === undefined || filter.method === request.method) &&
    (filter.kind === undefined || filter.kind === request.kind) &&
    (filter.repository === undefined || filter.repository === request.repository) &&
    (filter.reference === undefined || filter.reference === request.reference) &&
    (filter.range === undefined || filter.range === request.headers.has("range"));
}
