locals {
  # The nodes of this cluster, one by one, and the people named in the variable: nobody else
  database_allow_list = setunion(
    [for node in data.linode_instances.nodes.instances : "${node.ip_address}/32"],
    var.database_admin_cidrs,
  )
}

resource "linode_database_postgresql_v2" "main" {
  label        = local.label
  region       = var.region
  engine_id    = "postgresql/${var.database_version}"
  type         = var.database_type
  cluster_size = var.database_cluster_size
  allow_list   = local.database_allow_list

  updates = {
    frequency   = "weekly"
    duration    = 4
    day_of_week = var.database_updates.day_of_week
    hour_of_day = var.database_updates.hour_of_day
  }

  # A restore makes another database out of this one's backups: README.md, "Restore"
  fork_source       = try(var.database_restore.source_id, null)
  fork_restore_time = try(var.database_restore.time, null)

  lifecycle {
    # The orders are in here. To be rid of it is said on purpose, in README.md's "Teardown".
    prevent_destroy = true
    # true of the moment it was made; forgetting it later must not make it anew
    ignore_changes = [fork_source, fork_restore_time]

    precondition {
      condition     = alltrue([for cidr in local.database_allow_list : !endswith(cidr, "/0")])
      error_message = "The database would be open to the world: a network in its allow_list ends in /0."
    }
  }
}
