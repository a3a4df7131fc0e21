locals {
  # The cluster leaves alone the pools that carry this tag: they are resources of their own
  extra_pool_tag = "${local.label}-extra"
}

resource "linode_lke_cluster" "main" {
  label              = local.label
  region             = var.region
  k8s_version        = var.kubernetes_version
  tags               = local.tags
  external_pool_tags = [local.extra_pool_tag]

  control_plane {
    high_availability = var.high_availability

    acl {
      enabled = true

      addresses {
        ipv4 = var.control_plane_allowed_ipv4
        ipv6 = var.control_plane_allowed_ipv6
      }
    }
  }

  pool {
    type            = var.node_pool.type
    label           = "main"
    tags            = local.tags
    disk_encryption = "enabled"

    autoscaler {
      min = var.node_pool.min
      max = var.node_pool.max
    }
  }

  lifecycle {
    # how many nodes there are between min and max is the autoscaler's to say
    ignore_changes = [pool[0].count]
  }
}

resource "linode_lke_node_pool" "extra" {
  for_each = var.extra_node_pools

  cluster_id      = tonumber(linode_lke_cluster.main.id)
  type            = each.value.type
  label           = each.key
  labels          = { pool = each.key }
  tags            = concat(local.tags, [local.extra_pool_tag])
  disk_encryption = "enabled"

  autoscaler {
    min = each.value.min
    max = each.value.max
  }

  lifecycle {
    ignore_changes = [node_count]
  }
}

# All machines of the cluster, of every pool, as they are now: those that the autoscaler made are among them.
data "linode_instances" "nodes" {
  filter {
    name   = "lke_cluster_id"
    values = [linode_lke_cluster.main.id]
  }

  depends_on = [linode_lke_node_pool.extra]
}
