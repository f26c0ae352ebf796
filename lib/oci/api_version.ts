/**
 * How a registry says that it is one.
 *
 * @module
 */

/** What Docker's registry API has every answer say; older clients take no other for a registry. */
export const API_VERSION = { "docker-distribution-api-version": "registry/2.0" } as const;
