-- Who serves. As deploy/roles.sql, but that nothing here is kept, and the NetworkPolicy lets nobody else in: no password.
CREATE ROLE customer_orders LOGIN;
