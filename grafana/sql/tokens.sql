WITH {{usage}}
SELECT coalesce(sum(prompt_tokens + completion_tokens), 0) AS "Tokens"
FROM usage
