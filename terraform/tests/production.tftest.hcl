# What production promises. It needs no account: the provider is mocked. terraform init -backend=false && terraform test

mock_provider "linode" {
  mock_resource "linode_lke_cluster" {
    defaults = {
      id         = "4242"
      kubeconfig = "YXBpVmVyc2lvbjogdjE="
    }
  }

  mock_data "linode_instances" {
    defaults = {
      instances = [
        { id = 11, ip_address = "203.0.113.11" },
        { id = 12, ip_address = "203.0.113.12" },
      ]
    }
  }

  mock_data "linode_domain" {
    defaults = {
      id = 77
    }
  }
}

variables {
  environment                = "production"
  region                     = "eu-central"
  kubernetes_version         = "1.33"
  control_plane_allowed_ipv4 = ["192.0.2.10/32"]
  domain                     = "example.com"
}

run "the_control_plane_is_highly_available_and_closed" {
  command = plan

  assert {
    condition     = linode_lke_cluster.main.control_plane[0].high_availability
    error_message = "The control plane is one machine."
  }

  assert {
    condition     = linode_lke_cluster.main.control_plane[0].acl[0].enabled
    error_message = "The control plane has no ACL."
  }

  assert {
    condition     = linode_lke_cluster.main.control_plane[0].acl[0].addresses[0].ipv4 == toset(["192.0.2.10/32"])
    error_message = "The control plane lets in others than the variable names."
  }
}

run "nodes_outlive_one_of_them" {
  command = plan

  variables {
    extra_node_pools = { large = { type = "g6-standard-4", min = 2, max = 2 } }
  }

  assert {
    condition     = linode_lke_cluster.main.pool[0].autoscaler[0].min >= 2
    error_message = "The main pool may shrink to one node."
  }

  assert {
    condition     = linode_lke_node_pool.extra["large"].autoscaler[0].min == 2
    error_message = "A further pool does not scale as it was told."
  }

  assert {
    condition     = length(setintersection(linode_lke_cluster.main.external_pool_tags, linode_lke_node_pool.extra["large"].tags)) == 1
    error_message = "The cluster would remove the further pool."
  }

  assert {
    condition     = linode_lke_cluster.main.pool[0].disk_encryption == "enabled"
    error_message = "The nodes' disks are not encrypted."
  }
}

run "nodes_are_closed_to_the_world" {
  command = plan

  assert {
    condition     = linode_firewall.nodes.inbound_policy == "DROP" && linode_firewall.load_balancer.inbound_policy == "DROP"
    error_message = "A firewall lets in what no rule names."
  }

  assert {
    condition     = alltrue([for rule in linode_firewall.nodes.inbound : alltrue([for cidr in rule.ipv4 : startswith(cidr, "192.168.")])])
    error_message = "A rule lets the world in to the nodes."
  }

  assert {
    condition     = [for rule in linode_firewall.load_balancer.inbound : rule.ports] == ["80,443"]
    error_message = "The world is let in to other ports than 80 and 443."
  }
}

# Which nodes there are is known only after the cluster: this much is applied, to what the mock makes up, and no database,
# which prevent_destroy would keep from being cleared away.
run "every_node_has_the_firewall_and_reaches_the_database" {
  command = apply

  plan_options {
    target = [linode_firewall.nodes]
  }

  variables {
    database_admin_cidrs = ["198.51.100.7/32"]
  }

  assert {
    condition     = linode_firewall.nodes.linodes == toset([11, 12])
    error_message = "The firewall is not before every node."
  }

  assert {
    condition     = output.database_allow_list == toset(["203.0.113.11/32", "203.0.113.12/32", "198.51.100.7/32"])
    error_message = "The database lets in others than the nodes and the administrators."
  }
}

run "the_database_has_a_standby" {
  command = plan

  override_resource {
    target          = linode_database_postgresql_v2.main
    override_during = plan
    values = {
      host_primary  = "db.example.net"
      root_username = "admin"
      root_password = "it's a \\"
      port          = 5432
    }
  }

  assert {
    condition     = linode_database_postgresql_v2.main.cluster_size == 3
    error_message = "The database has no standby to spare."
  }

  assert {
    condition     = strcontains(nonsensitive(output.database_admin_conninfo), "host=db.example.net port=5432 ")
    error_message = "The administrator is led elsewhere than to the primary."
  }

  assert {
    condition     = strcontains(nonsensitive(output.database_admin_conninfo), "'it\\'s a \\\\' sslmode=")
    error_message = "psql would read another password."
  }
}

run "no_record_before_there_is_an_address" {
  command = plan

  assert {
    condition     = length(linode_domain_record.service) == 0 && length(linode_domain.main) == 0
    error_message = "A record, or a domain, comes out of nothing."
  }

  assert {
    condition     = output.public_url == "https://orders.example.com"
    error_message = "The service's address is wrong."
  }
}

run "a_domain_of_its_own_with_records" {
  command = plan

  variables {
    create_domain      = true
    soa_email          = "dns@example.com"
    hostname           = ""
    load_balancer_ipv4 = "203.0.113.7"
    load_balancer_ipv6 = "2001:db8::7"
  }

  override_resource {
    target          = linode_domain.main
    override_during = plan
    values          = { id = "78" }
  }

  assert {
    condition     = { for type, record in linode_domain_record.service : type => record.target } == { A = "203.0.113.7", AAAA = "2001:db8::7" }
    error_message = "The records do not lead to the NodeBalancer."
  }

  assert {
    condition     = alltrue([for record in linode_domain_record.service : record.domain_id == 78])
    error_message = "The records are in another domain."
  }

  assert {
    condition     = output.public_url == "https://example.com"
    error_message = "The service's address is wrong."
  }
}

run "production_refuses_one_of_anything" {
  command = plan

  variables {
    high_availability     = false
    database_cluster_size = 1
    node_pool             = { type = "g6-standard-2", min = 1, max = 3 }
    extra_node_pools      = { large = { type = "g6-standard-4", min = 1, max = 2 } }
  }

  expect_failures = [var.high_availability, var.database_cluster_size, var.node_pool, var.extra_node_pools]
}

run "staging_may_be_small" {
  command = plan

  variables {
    environment           = "staging"
    high_availability     = false
    database_cluster_size = 1
  }
}

run "nothing_is_opened_to_the_world" {
  command = plan

  variables {
    control_plane_allowed_ipv4 = ["0.0.0.0/0"]
    control_plane_allowed_ipv6 = ["::/0"]
    database_admin_cidrs       = ["0.0.0.0/0"]
  }

  expect_failures = [var.control_plane_allowed_ipv4, var.control_plane_allowed_ipv6, var.database_admin_cidrs]
}

run "what_is_mistyped_is_said" {
  command = plan

  variables {
    environment        = "prod"
    region             = "Frankfurt"
    kubernetes_version = "latest"
    name               = "Customer Orders"
    database_version   = "9.6"
    database_updates   = { day_of_week = 0, hour_of_day = 24 }
    database_restore   = { source_id = 1, time = "yesterday" }
    domain             = "https://example.com"
    hostname           = "api.orders"
    create_domain      = true
    load_balancer_ipv4 = "lb.example.com"
    load_balancer_ipv6 = "203.0.113.7"
  }

  expect_failures = [
    var.environment,
    var.region,
    var.kubernetes_version,
    var.name,
    var.database_version,
    var.database_updates,
    var.database_restore,
    var.domain,
    var.hostname,
    var.soa_email,
    var.load_balancer_ipv4,
    var.load_balancer_ipv6,
  ]
}
