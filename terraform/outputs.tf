output "cluster_id" {
  description = "The cluster's id at Linode."
  value       = linode_lke_cluster.main.id
}

output "api_endpoints" {
  description = "Where the control plane listens, for those whom its ACL lets in."
  value       = linode_lke_cluster.main.api_endpoints
}

output "kubeconfig" {
  description = "Admits its holder to everything in the cluster: terraform output -raw kubeconfig > kubeconfig.yaml, with umask 077."
  value       = try(base64decode(linode_lke_cluster.main.kubeconfig), null)
  sensitive   = true
}

output "nodes_firewall_id" {
  description = "The firewall of the nodes."
  value       = linode_firewall.nodes.id
}

output "load_balancer_firewall_id" {
  description = "For the annotation service.beta.kubernetes.io/linode-loadbalancer-firewall-id of the Service that faces the world."
  value       = linode_firewall.load_balancer.id
}

output "database_id" {
  description = "The database's id at Linode; a restore names it."
  value       = linode_database_postgresql_v2.main.id
}

output "database_host" {
  description = "The primary's name; after a failover it leads to the new primary."
  value       = linode_database_postgresql_v2.main.host_primary
}

output "database_port" {
  description = "The primary's port."
  value       = linode_database_postgresql_v2.main.port
}

output "database_admin_conninfo" {
  description = "For psql: the administrator, with whom the roles of the service are made. The service itself never uses it."
  value = format(
    "host=%s port=%d dbname=defaultdb user=%s password='%s' sslmode=verify-full sslrootcert=database-ca.pem",
    linode_database_postgresql_v2.main.host_primary,
    linode_database_postgresql_v2.main.port,
    linode_database_postgresql_v2.main.root_username,
    replace(replace(linode_database_postgresql_v2.main.root_password, "\\", "\\\\"), "'", "\\'"),
  )
  sensitive = true
}

output "database_ca" {
  description = "The certificate, PEM, that sslmode=verify-full checks the database by. No secret, but the provider marks it as one."
  value       = try(base64decode(linode_database_postgresql_v2.main.ca_cert), null)
  sensitive   = true
}

output "database_allow_list" {
  description = "Who may reach the database: each node, and the administrators that database_admin_cidrs names."
  value       = local.database_allow_list
}

output "database_oldest_restore_time" {
  description = "The oldest moment that the database's backups can be restored to."
  value       = linode_database_postgresql_v2.main.oldest_restore_time
}

output "public_url" {
  description = "The service's app.public_url."
  value       = "https://${trimprefix("${var.hostname}.${var.domain}", ".")}"
}
