-- Run once, by the image of PostgreSQL, when the volume is new: the role that the application signs in as. It owns nothing;
-- what it may do is given by `customer-orders db grants --apply`, after each migration.
\set password `cat /run/secrets/database_app_password`
CREATE ROLE orders_app LOGIN PASSWORD :'password';
