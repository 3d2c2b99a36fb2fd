SELECT name
FROM pg_timezone_names
WHERE name = 'UTC' OR name ~ '^(Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Europe|Indian|Pacific)/'
ORDER BY name <> 'UTC', name
