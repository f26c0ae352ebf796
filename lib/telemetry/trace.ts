/**
 * Spans for tracing (`OTEL_DENO=true`). Deno creates one span per request and exports all of them; this
 * module adds the spans within a request.
 *
 * @module
 */

/** The subset of an OpenTelemetry span that is used. */
interface Span {
  recordException(error: Error): void;
  setStatus(status: { code: number; message?: string }): void;
  end(): void;
}

/** The subset of an OpenTelemetry tracer that is used. */
interface Tracer {
  startActiveSpan<T>(
    name: string,
    options: { attributes: Readonly<Record<string, string>> },
    work: (span: Span) => T,
  ): T;
}

/** OpenTelemetry's `SpanStatusCode.ERROR`. */
const ERROR = 2;

let tracer: Tracer | undefined;

/** Enables {@linkcode span}. */
export function startTracing(): void {
  // Deno's own provider, which OpenTelemetry's package would return.
  tracer = Deno.telemetry.tracerProvider.getTracer("deno-docker-proxy");
}

/** Runs `work` in a span below the active one. Attributes must not contain secrets. */
export async function span<T>(
  name: "cache" | "token" | "upstream",
  attributes: Readonly<Record<string, string>>,
  work: () => Promise<T>,
): Promise<T> {
  if (!tracer) return await work();
  return await tracer.startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work();
    } catch (error) {
      span.recordException(error as Error);
      span.setStatus({ code: ERROR, message: (error as Error).message });
      throw error;
    } finally {
      span.end();
    }
  });
}
