SELECT name FROM teams ORDER BY name
