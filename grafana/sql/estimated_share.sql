WITH {{usage}}
SELECT coalesce(sum(estimated_tokens) / nullif(sum(prompt_tokens + completion_tokens), 0), 0) AS "Estimated"
FROM usage
