-- Why: a tenant's documents, cut into chunks, each with a vector, so that a task is given the passages that bear on it.
--
-- The document's row is the lock: whoever embeds it holds a lease on it, and every write carries the lease. An attempt writes its chunks as an
-- edition of its own, in short transactions, and the last statement makes that edition the one that is searched and drops the others. So a
-- document that is embedded twice, by two at once, or by somebody who dies half-way shows all of its chunks or none, and never two of one.
CREATE TABLE knowledge_documents (
  id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES tenants(id),
  -- Over the media type and the content as it was sent: the same content twice is one document.
  sha256 text NOT NULL,
  source_url text,
  media_type text NOT NULL CHECK (media_type IN ('text/plain', 'text/markdown', 'text/html')),
  -- As it is chunked: HTML has become Markdown.
  content text NOT NULL,
  bytes int NOT NULL,
  status text NOT NULL DEFAULT 'queued' CHECK (status IN ('queued', 'embedding', 'ready', 'failed')),
  error text,
  attempts int NOT NULL DEFAULT 0,
  -- Not before; a failed attempt puts it off.
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  ring_count int NOT NULL DEFAULT 0,
  next_ring_at timestamptz,
  lease_token uuid,
  lease_until timestamptz,
  -- The chunks that are searched, and the model of their vectors; null before the first.
  edition uuid,
  embedding_model text,
  chunk_count int NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  embedded_at timestamptz,
  UNIQUE (tenant_id, sha256)
);
CREATE INDEX knowledge_documents_of_tenant ON knowledge_documents (tenant_id, id);
CREATE INDEX knowledge_documents_due ON knowledge_documents (next_ring_at) WHERE status IN ('queued', 'embedding');
CREATE INDEX knowledge_documents_by_model ON knowledge_documents (embedding_model) WHERE status = 'ready';

-- SPEC's table; source_url stands once, with the document, and what the metadata would hold has columns.
CREATE TABLE org_knowledge_chunks (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  tenant_id uuid NOT NULL,
  document_id uuid NOT NULL REFERENCES knowledge_documents(id) ON DELETE CASCADE,
  edition uuid NOT NULL,
  position int NOT NULL,
  -- The headings above it, outermost first: `Handbook > Leave > Sick days`.
  heading text NOT NULL,
  content text NOT NULL,
  token_count int NOT NULL,
  -- Vectors of two models must never be compared.
  embedding_model text NOT NULL,
  -- 1536 numbers of length 1 together, so that the inner product is the cosine. vector(1536) where pgvector is: see adopt_pgvector.
  embedding real[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (document_id, edition, position)
);
CREATE INDEX org_knowledge_chunks_of_tenant ON org_knowledge_chunks (tenant_id, embedding_model);

DO $$
DECLARE t text;
BEGIN
  FOREACH t IN ARRAY ARRAY['knowledge_documents', 'org_knowledge_chunks'] LOOP
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY own_tenant ON %I TO aau_app USING (tenant_id = (SELECT app_tenant())) WITH CHECK (tenant_id = (SELECT app_tenant()))', t);
    EXECUTE format('CREATE POLICY all_tenants ON %I TO aau_platform USING (true) WITH CHECK (true)', t);
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %I TO aau_app, aau_platform', t);
  END LOOP;
END $$;

-- Stores a document, or finds the one with the same content; a failed one is tried again.
CREATE FUNCTION put_document(p_tenant uuid, p_id uuid, p_sha256 text, p_source_url text, p_media_type text, p_content text, p_bytes int)
RETURNS TABLE (id uuid, status text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    INSERT INTO knowledge_documents AS d (id, tenant_id, sha256, source_url, media_type, content, bytes, next_ring_at)
      VALUES (p_id, p_tenant, p_sha256, p_source_url, p_media_type, p_content, p_bytes, now() + interval '10 seconds')
    ON CONFLICT (tenant_id, sha256) DO UPDATE SET
      source_url = coalesce(EXCLUDED.source_url, d.source_url),
      status = CASE d.status WHEN 'failed' THEN 'queued' ELSE d.status END,
      attempts = CASE d.status WHEN 'failed' THEN 0 ELSE d.attempts END,
      error = CASE d.status WHEN 'failed' THEN NULL ELSE d.error END,
      next_attempt_at = CASE d.status WHEN 'failed' THEN now() ELSE d.next_attempt_at END,
      next_ring_at = CASE d.status WHEN 'failed' THEN EXCLUDED.next_ring_at ELSE d.next_ring_at END
    RETURNING d.id, d.status;
END $$;

-- Takes a document for one embedder: `claimed`; `gone` when it is done, deleted, not due or held by another; `ended` when too many that held it died.
CREATE FUNCTION claim_document(p_id uuid, p_lease_ms int, p_max_attempts int)
RETURNS TABLE (outcome text, tenant_id uuid, lease_token uuid, attempt int, media_type text, content text) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE d knowledge_documents;
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE knowledge_documents SET status = 'embedding', attempts = attempts + 1, ring_count = 0, lease_token = gen_random_uuid(),
      lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond'
    WHERE id = p_id AND ((status = 'queued' AND next_attempt_at <= now()) OR (status = 'embedding' AND lease_until < now()))
    RETURNING * INTO d;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'gone', NULL::uuid, NULL::uuid, 0, NULL::text, NULL::text;
    RETURN;
  END IF;
  -- Left by an attempt that stopped half-way.
  DELETE FROM org_knowledge_chunks c WHERE c.document_id = p_id AND c.edition IS DISTINCT FROM d.edition;
  IF d.attempts > p_max_attempts THEN
    UPDATE knowledge_documents SET status = 'failed', lease_token = NULL, lease_until = NULL, next_ring_at = NULL,
      error = format('It was tried %s times, and whoever worked on it stopped without a word.', p_max_attempts) WHERE id = p_id;
    RETURN QUERY SELECT 'ended', d.tenant_id, NULL::uuid, d.attempts, NULL::text, NULL::text;
    RETURN;
  END IF;
  RETURN QUERY SELECT 'claimed', d.tenant_id, d.lease_token, d.attempts, d.media_type, d.content;
END $$;

-- Adds chunks to the lease's edition and renews the lease. False: it is lost, or the document is gone.
CREATE FUNCTION add_chunks(p_tenant uuid, p_id uuid, p_lease uuid, p_lease_ms int, p_model text, p_positions int[], p_headings text[], p_contents text[],
  p_token_counts int[], p_embeddings text[]) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE knowledge_documents SET lease_until = now() + p_lease_ms * interval '1 millisecond', next_ring_at = now() + (p_lease_ms + 1000) * interval '1 millisecond'
    WHERE id = p_id AND status = 'embedding' AND lease_token = p_lease;
  IF NOT FOUND THEN RETURN false; END IF;
  INSERT INTO org_knowledge_chunks (tenant_id, document_id, edition, position, heading, content, token_count, embedding_model, embedding)
    SELECT p_tenant, p_id, p_lease, c.position, c.heading, c.content, c.token_count, p_model, c.embedding::real[]
    FROM unnest(p_positions, p_headings, p_contents, p_token_counts, p_embeddings) AS c(position, heading, content, token_count, embedding);
  RETURN true;
END $$;

-- Makes the lease's edition the one that is searched. False: the lease is lost, or the document is gone.
CREATE FUNCTION finish_document(p_tenant uuid, p_id uuid, p_lease uuid, p_model text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE knowledge_documents SET status = 'ready', error = NULL, edition = p_lease, embedding_model = p_model, embedded_at = now(), lease_token = NULL,
      lease_until = NULL, next_ring_at = NULL, attempts = 0,
      chunk_count = (SELECT count(*) FROM org_knowledge_chunks c WHERE c.document_id = p_id AND c.edition = p_lease)
    WHERE id = p_id AND status = 'embedding' AND lease_token = p_lease;
  IF NOT FOUND THEN RETURN false; END IF;
  DELETE FROM org_knowledge_chunks WHERE document_id = p_id AND edition <> p_lease;
  RETURN true;
END $$;

-- Gives a document back: to be tried again after a while, or, with no while, never again. What the attempt wrote goes.
CREATE FUNCTION put_off_document(p_tenant uuid, p_id uuid, p_lease uuid, p_error text, p_delay_ms bigint, p_counts boolean) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  UPDATE knowledge_documents SET status = CASE WHEN p_delay_ms IS NULL THEN 'failed' ELSE 'queued' END, error = p_error, lease_token = NULL, lease_until = NULL,
      attempts = attempts - (NOT p_counts)::int, next_attempt_at = coalesce(now() + p_delay_ms * interval '1 millisecond', next_attempt_at),
      next_ring_at = now() + p_delay_ms * interval '1 millisecond'
    WHERE id = p_id AND status = 'embedding' AND lease_token = p_lease;
  IF NOT FOUND THEN RETURN false; END IF;
  DELETE FROM org_knowledge_chunks WHERE document_id = p_id AND edition = p_lease;
  RETURN true;
END $$;

-- Fails the document of an event that could not be delivered, unless somebody holds it or it is done.
CREATE FUNCTION fail_undeliverable_document(p_id uuid, p_error text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE knowledge_documents SET status = 'failed', error = p_error, lease_token = NULL, lease_until = NULL, next_ring_at = NULL
    WHERE id = p_id AND (status = 'queued' OR (status = 'embedding' AND lease_until < now()));
  RETURN FOUND;
END $$;

-- Documents that wait for a ring, after those whose vectors another model made have been queued again. The five minutes keep a roll-out, in which
-- instances with the old model and the new run side by side, from embedding everything over and over.
CREATE FUNCTION take_due_documents(p_limit int, p_model text) RETURNS TABLE (id uuid) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_platform', true);
  UPDATE knowledge_documents d SET status = 'queued', attempts = 0, ring_count = 0, next_attempt_at = now(), next_ring_at = now()
    FROM (SELECT s.id FROM knowledge_documents s WHERE s.status = 'ready' AND (s.embedding_model < p_model OR s.embedding_model > p_model)
        AND s.embedded_at < now() - interval '5 minutes' LIMIT p_limit FOR UPDATE SKIP LOCKED) stale
    WHERE d.id = stale.id;
  RETURN QUERY
    UPDATE knowledge_documents d SET ring_count = d.ring_count + 1, next_ring_at = now() + least(interval '5 minutes', interval '10 seconds' * power(2, least(d.ring_count, 5)))
    FROM (SELECT w.id FROM knowledge_documents w WHERE w.status IN ('queued', 'embedding') AND w.next_ring_at <= now() ORDER BY w.next_ring_at LIMIT p_limit FOR UPDATE SKIP LOCKED) due
    WHERE d.id = due.id
    RETURNING d.id;
END $$;

-- Whether it is worth embedding a question.
CREATE FUNCTION has_knowledge(p_tenant uuid, p_model text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN EXISTS (SELECT FROM org_knowledge_chunks WHERE tenant_id = p_tenant AND embedding_model = p_model);
END $$;

-- The chunks nearest to a vector, nearest first, none below p_min. This body is for servers without pgvector: right, and as slow as the tenant is
-- large. p_exact_up_to has no meaning here: every search is exact.
CREATE FUNCTION nearest_chunks(p_tenant uuid, p_model text, p_query real[], p_min real, p_limit int, p_exact_up_to int)
RETURNS TABLE (document_id uuid, source_url text, heading text, content text, token_count int, similarity real) LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
  RETURN QUERY
    SELECT c.document_id, d.source_url, c.heading, c.content, c.token_count, s.similarity
    FROM org_knowledge_chunks c
    JOIN knowledge_documents d ON d.id = c.document_id AND d.edition = c.edition
    CROSS JOIN LATERAL (SELECT sum(pair.a * pair.b)::real AS similarity FROM unnest(c.embedding, p_query) AS pair(a, b)) s
    WHERE c.tenant_id = p_tenant AND c.embedding_model = p_model AND s.similarity >= p_min
    ORDER BY s.similarity DESC, c.id LIMIT p_limit;
END $$;

-- Turns the vectors into pgvector's and builds their index. Called below where pgvector is; by hand on a server that gets it later.
CREATE FUNCTION adopt_pgvector() RETURNS void LANGUAGE plpgsql AS $adopt$
BEGIN
  CREATE EXTENSION IF NOT EXISTS vector;
  IF (SELECT string_to_array(extversion, '.')::int[] < '{0,8}' FROM pg_extension WHERE extname = 'vector') THEN
    RAISE EXCEPTION 'pgvector 0.8 or later is needed: an older one returns too few of a tenant''s chunks where others have many (ALTER EXTENSION vector UPDATE)';
  END IF;
  ALTER TABLE org_knowledge_chunks ALTER COLUMN embedding TYPE vector(1536);
  CREATE INDEX org_knowledge_chunks_near ON org_knowledge_chunks USING hnsw (embedding vector_ip_ops) WITH (m = 16, ef_construction = 64);

  -- The index knows nothing of tenants: it hands out the nearest of all, and the filter drops what belongs to others. So a tenant with few chunks is
  -- searched without it, and for the others the scan goes on until enough are found. Where it gives up before that, the search is exact as well.
  CREATE OR REPLACE FUNCTION nearest_chunks(p_tenant uuid, p_model text, p_query real[], p_min real, p_limit int, p_exact_up_to int)
  RETURNS TABLE (document_id uuid, source_url text, heading text, content text, token_count int, similarity real) LANGUAGE plpgsql AS $$
  #variable_conflict use_column
  DECLARE v_query vector(1536) := p_query; v_ids uuid[];
  BEGIN
    PERFORM set_config('role', 'aau_app', true), set_config('app.tenant', p_tenant::text, true);
    IF (SELECT count(*) > p_exact_up_to FROM (SELECT FROM org_knowledge_chunks c WHERE c.tenant_id = p_tenant AND c.embedding_model = p_model LIMIT p_exact_up_to + 1) few) THEN
      -- Without sorting, the planner has no way but the index. Relaxed order finds more for the same work, and the last SELECT sorts.
      PERFORM set_config('enable_sort', 'off', true), set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', '100', true),
        set_config('hnsw.max_scan_tuples', '20000', true), set_config('hnsw.scan_mem_multiplier', '4', true);
      v_ids := ARRAY(SELECT c.id FROM org_knowledge_chunks c JOIN knowledge_documents d ON d.id = c.document_id AND d.edition = c.edition
        WHERE c.tenant_id = p_tenant AND c.embedding_model = p_model ORDER BY c.embedding <#> v_query LIMIT p_limit);
      PERFORM set_config('enable_sort', 'on', true);
    END IF;
    IF coalesce(cardinality(v_ids), 0) < p_limit THEN
      v_ids := ARRAY(SELECT near.id FROM (SELECT c.id, c.embedding <#> v_query AS distance
          FROM org_knowledge_chunks c JOIN knowledge_documents d ON d.id = c.document_id AND d.edition = c.edition
          WHERE c.tenant_id = p_tenant AND c.embedding_model = p_model OFFSET 0) near
        ORDER BY near.distance LIMIT p_limit);
    END IF;
    RETURN QUERY
      SELECT c.document_id, d.source_url, c.heading, c.content, c.token_count, -(c.embedding <#> v_query)::real AS similarity
      FROM org_knowledge_chunks c JOIN knowledge_documents d ON d.id = c.document_id
      WHERE c.id = ANY (v_ids) AND -(c.embedding <#> v_query) >= p_min
      ORDER BY similarity DESC, c.id;
  END $$;
END $adopt$;

DO $$
DECLARE v_version text := (SELECT default_version FROM pg_available_extensions WHERE name = 'vector');
BEGIN
  IF string_to_array(v_version, '.')::int[] >= '{0,8}' THEN PERFORM adopt_pgvector();
  ELSE RAISE WARNING 'pgvector 0.8 or later is not on this server: knowledge is searched exactly, which is slow for tenants with thousands of chunks';
  END IF;
END $$;
